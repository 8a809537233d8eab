"""Realistic people, each made from nothing but the seed and its own number."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from typing import Any

from bson import ObjectId
from mimesis import Address, Gender, Locale, Person
from mimesis.random import Random

Document = dict[str, Any]

FIRST_DAY = datetime(2023, 1, 1, tzinfo=UTC)
DAYS = 3 * 365
"""Everyone signed up in these days: fixed ones, since a date that depends on today would change people."""

# Latin alphabets only, so that an e-mail address can be made of each name.
LOCALES = {
    Locale.EN: 4,
    Locale.EN_GB: 2,
    Locale.DE: 2,
    Locale.ES: 2,
    Locale.FR: 2,
    Locale.IT: 1,
    Locale.NL: 1,
    Locale.PL: 1,
    Locale.PT_BR: 2,
    Locale.SV: 1,
}
TAGS = (
    "music", "travel", "cooking", "football", "photography", "cinema", "hiking", "books", "gaming", "gardening",
    "cycling", "art", "yoga", "history", "science", "dance", "sailing", "chess", "maths", "pottery",
)  # fmt: skip
TAG_WEIGHTS = [1 / rank for rank in range(1, len(TAGS) + 1)]
MAIL_DOMAINS = ("example.com", "example.net", "example.org")
AGES = (18, 95)
UNKNOWN = 0.03
"""The share of people whose age, and of those whose city, is not known."""


class People:
    """The people of one seed. Number n is the same person however many are made, and in whichever order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = Random()
        self._locales = [locale for locale, weight in LOCALES.items() for _ in range(weight)]
        self._person = cache(lambda locale: Person(locale, random=self._random))
        self._address = cache(lambda locale: Address(locale, random=self._random))

    def id(self, number: int) -> ObjectId:
        """The person's `_id`; much cheaper than the person."""
        return self._origin(number)[0]

    def document(self, number: int) -> Document:
        """The person as the service stores a user that was just created."""
        key, created_at, rest = self._origin(number)
        random = self._random
        random.seed(rest)
        locale = random.choice(self._locales)
        gender = random.choice((Gender.FEMALE, Gender.MALE))
        person = self._person(locale)
        first, last = person.first_name(gender=gender).strip(), person.last_name(gender=gender).strip()
        tags = dict.fromkeys(random.choices(TAGS, TAG_WEIGHTS, k=random.randrange(6)))
        return {
            "_id": key,
            "email": self._email(first, last, number),
            "name": f"{first} {last}",
            "age": None if random.random() < UNKNOWN else round(random.triangular(*AGES, 33)),
            "city": None if random.random() < UNKNOWN else self._address(locale).city().strip(),
            "tags": list(tags),
            "created_at": created_at,
            "updated_at": created_at,
            "version": 1,
        }

    def _origin(self, number: int) -> tuple[ObjectId, datetime, bytes]:
        """The `_id` (its first part is the time, as in any ObjectId), that time, and what to seed the rest with."""
        digest = blake2b(f"{self._seed}:{number}".encode(), digest_size=32).digest()
        created_at = FIRST_DAY + timedelta(milliseconds=int.from_bytes(digest[:8]) % (DAYS * 86_400_000))
        return ObjectId(int(created_at.timestamp()).to_bytes(4) + digest[8:16]), created_at, digest[16:]

    def _email(self, first: str, last: str, number: int) -> str:
        """Unique by the person's number, and by the seed in the domain: people of several seeds can live together."""
        return f"{_ascii(first)}.{_ascii(last)}{number}@mail{self._seed}.{self._random.choice(MAIL_DOMAINS)}"


def _ascii(name: str) -> str:
    """The name's letters without their accents, in lower case."""
    return re.sub("[^a-z]", "", unicodedata.normalize("NFKD", name.lower())) or "x"
