"""Bulk writes of whoever is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError

from app.http.errors import DUPLICATE_KEY
from app.users.repository import COLLECTION, prepare
from scripts.seed.people import Document, People
from scripts.seed.target import Target

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection

SERVER_SELECTION_MS = 10_000


@dataclass(slots=True)
class Outcome:
    """What became of the people. `taken`: somebody else has this e-mail address."""

    added: int = 0
    there: int = 0
    taken: int = 0


async def fill(
    target: Target, people: People, users: int, batch: int, *, progress: Callable[[int], None] = lambda _: None
) -> Outcome:
    """Add whoever of the first `users` people is missing, `batch` in one write; `progress` is told how many are done.

    Prepares the collection as the service does. Raises `PyMongoError`; what was written by then stays, and counts as
    there the next time.
    """
    outcome = Outcome()
    async with AsyncMongoClient[Document](
        target.url, serverSelectionTimeoutMS=SERVER_SELECTION_MS, appname="sluice-seed"
    ) as client:
        database = client[target.database]
        await prepare(database)
        # One write at a time: several in flight were measured to be no faster.
        for first in range(0, users, batch):
            numbers = range(first, min(first + batch, users))
            await _add(database[COLLECTION], people, numbers, outcome)
            progress(numbers.stop)
    return outcome


async def _add(users: AsyncCollection[Document], people: People, numbers: range, outcome: Outcome) -> None:
    ids = {people.id(number): number for number in numbers}
    known = {document["_id"] async for document in users.find({"_id": {"$in": list(ids)}}, {"_id": True})}
    missing = [people.document(number) for key, number in ids.items() if key not in known]
    there, taken = len(known), 0
    try:
        if missing:
            await users.insert_many(missing, ordered=False)
    except BulkWriteError as error:
        failures = error.details["writeErrors"]
        if error.details["writeConcernErrors"] or {failure["code"] for failure in failures} != {DUPLICATE_KEY}:
            raise
        raced = sum("_id" in failure["keyPattern"] for failure in failures)  # another seeding runs beside this one
        there, taken = there + raced, len(failures) - raced
    outcome.there += there
    outcome.taken += taken
    outcome.added += len(numbers) - there - taken
