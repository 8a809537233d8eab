"""The documents that everybody works on."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import MongoClient

Document = dict[str, Any]
COUNT = 10_000
COLLECTION = "users"
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_CITIES = ("Berlin", "Lagos", "Lima", "London", "Osaka", "Paris", "Pune", "Quito")
_TAGS = ("admin", "beta", "early", "maths", "news", "press", "team")


def person(number: int) -> Document:
    """User `number`, the same in every run but for the `_id`."""
    chance = random.Random(number)
    created = _FIRST_DAY + timedelta(seconds=number)
    return {
        "_id": ObjectId(),
        "email": f"user{number}@example.org",
        "name": f"User Number {number}",
        "age": chance.randrange(18, 90),
        "city": chance.choice(_CITIES),
        "tags": chance.sample(_TAGS, 2),
        "created_at": created,
        "updated_at": created,
        "version": 1,
    }


def fill(url: str, databases: list[str]) -> list[ObjectId]:
    """Put the same people into each database's collection; their ids."""
    people = [person(number) for number in range(COUNT)]
    with MongoClient[Document](url, w="majority") as client:
        for database in databases:
            client[database][COLLECTION].delete_many({})
            client[database][COLLECTION].insert_many(people)
    return [document["_id"] for document in people]


def trim(url: str, database: str, above: int) -> None:
    """Take the collection back to its first people once it has grown above so many; options and indexes stay."""
    with MongoClient[Document](url, w="majority") as client:
        collection = client[database][COLLECTION]
        if collection.estimated_document_count() <= above:
            return
        people = list(collection.find({"created_at": {"$lt": _FIRST_DAY + timedelta(seconds=COUNT)}}))
        options = collection.options()
        indexes = [index for index in collection.list_indexes() if index["name"] != "_id_"]
        collection.drop()
        client[database].create_collection(COLLECTION, **options)
        client[database].command("createIndexes", COLLECTION, indexes=[dict(index) for index in indexes])
        collection.insert_many(people)
