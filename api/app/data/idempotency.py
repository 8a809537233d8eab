"""Creates that may be repeated: what an `Idempotency-Key` names happens once, however often it's asked for.

Who got no answer can't know whether the create happened. The key is kept in the same transaction as what was written,
so that neither a crash nor an election can part them, together with the answer, which whoever repeats the request gets
again. After draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from app.data.collections import ensure
from app.http.idempotency_key import HEADER
from app.http.problems import Kind, Problem
from sluice import Sluice

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.database import AsyncDatabase

Answer = TypeVar("Answer", bound=BaseModel)
Document = dict[str, Any]
Work = Callable[["AsyncClientSession | None"], Coroutine[Any, Any, Answer]]

COLLECTION = "idempotency_keys"
OTHER_REQUEST = Kind("/problems/idempotency-key-reused", 422, "The Idempotency-Key was used for another request")
SCHEMA: Document = {
    "title": "sluice.idempotency_keys v1",
    "bsonType": "object",
    "required": ["request", "answer", "expires_at"],
    "properties": {
        "_id": {"bsonType": "string", "maxLength": 255},
        "request": {"bsonType": "binData"},
        "answer": {"bsonType": "object"},
        "expires_at": {"bsonType": "date"},
    },
}
INDEXES = [IndexModel([("expires_at", ASCENDING)], name="expires_at", expireAfterSeconds=0)]


async def prepare(database: AsyncDatabase[Document]) -> str | None:
    """Make the collection of keys; see `app.data.collections.ensure`."""
    return await ensure(database, COLLECTION, schema=SCHEMA, indexes=INDEXES)


class Once:
    """One request's work, done once per key; without a key, each time. Routes take it as `OnceDep`."""

    def __init__(self, sluice: Sluice, key: str | None, route: str, seconds: int) -> None:
        """`route`: method and path, which the key belongs to as the body does; `seconds`: how long it's kept."""
        self._sluice = sluice
        self._key = key
        self._route = route
        self._seconds = seconds

    async def do(self, body: BaseModel, answers: type[Answer], work: Work[Answer]) -> Answer:
        """What `work(session)` answers, or what it answered the first time; `answers` is its class.

        The session is None where there is no key. With one, all that `work` does goes by it, since that is one
        transaction, which is done again where it met another one. Raises `Problem` (422) for a key of another request,
        and what `work` raises; then nothing is kept, and the request may be repeated.
        """
        if self._key is None:
            return await work(None)
        request = hashlib.sha256(f"{self._route}\n{body.model_dump_json(warnings=False)}".encode()).digest()

        async def first_time(session: AsyncClientSession) -> Answer:
            answer = await work(session)
            record = {
                "_id": self._key,
                "request": request,
                "answer": answer.model_dump(mode="json"),
                "expires_at": datetime.now(UTC) + timedelta(seconds=self._seconds),
            }
            with self._sluice.operation(COLLECTION, "insert_one"):
                await self._sluice.collection(COLLECTION).insert_one(record, session=session)
            return answer

        try:
            return await self._sluice.with_transaction(first_time)
        except DuplicateKeyError:  # of the key, or of what the first request with it has created
            earlier = await self._earlier()
            if earlier is None:
                raise
        if earlier["request"] != request:
            raise Problem(OTHER_REQUEST, f"{HEADER}: allowed is a new one for another body or another address")
        return answers.model_validate(earlier["answer"])

    async def _earlier(self) -> Document | None:
        """Of the first request with this key, surely kept by a majority: it may have been committed a moment ago."""
        collection = self._sluice.collection(COLLECTION).with_options(read_concern=ReadConcern("linearizable"))
        with self._sluice.operation(COLLECTION, "find_one"):
            return await collection.find_one({"_id": self._key})
