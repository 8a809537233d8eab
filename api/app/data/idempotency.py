"""Creates that may be repeated: what an `Idempotency-Key` names happens once, however often it's asked for.

Who got no answer can't know whether the create happened. The key is kept in the same transaction as what was written,
so that neither a crash nor an election can part them, together with the answer, which whoever repeats the request gets
again. After draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, SecretBytes, SecretStr
from pymongo import ASCENDING, IndexModel, ReadPreference
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from app.data.collections import ensure
from app.http import problems
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
ILLEGAL_OPERATION = 20
"""The server's code where transactions are not for."""
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
        """`route`: method, path and query, which the key belongs to as the body does; `seconds`: how long it's kept."""
        self._sluice = sluice
        self._key = key
        self._route = route
        self._seconds = seconds

    async def do(self, body: BaseModel, answers: type[Answer], work: Work[Answer]) -> Answer:
        """What `work(session)` answers, or what it answered the first time; `answers` is its class.

        The session is None where there is no key. With one, all that `work` does goes by it, since that is one
        transaction, which is done again where it met another one. Raises `Problem` (422 for a key of another request,
        501 where MongoDB has no transactions) and what `work` raises; then nothing is kept, and the request may be
        repeated.
        """
        if self._key is None:
            return await work(None)
        if "Standalone" in self._sluice.roles().values():
            raise _no_transactions()
        request = digest(self._route, body)

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

        taken: DuplicateKeyError | None = None
        for _ in range(2):  # once more, for the first request may have been undone between the two looks
            try:
                return await self._sluice.with_transaction(first_time)
            except DuplicateKeyError as error:  # of the key, or of what the first request with it has created
                taken = error
            except OperationFailure as error:
                if error.code == ILLEGAL_OPERATION:  # a standalone that wasn't known to be one yet
                    raise _no_transactions() from error
                raise
            earlier = await self._earlier()
            if earlier is None:
                continue
            if earlier["expires_at"] <= datetime.now(UTC):  # MongoDB looks once a minute
                await self._forget(earlier)
                continue
            if earlier["request"] != request:
                raise Problem(OTHER_REQUEST, f"{HEADER}: allowed is a new one for another body or another address")
            return answers.model_validate(earlier["answer"])
        assert taken is not None  # noqa: S101
        raise taken

    async def _earlier(self) -> Document | None:
        """Of the first request with this key, surely kept by a majority: it may have been committed a moment ago."""
        collection = self._sluice.collection(COLLECTION).with_options(
            read_concern=ReadConcern("linearizable"), read_preference=ReadPreference.PRIMARY
        )
        with self._sluice.operation(COLLECTION, "find_one"):
            return await collection.find_one({"_id": self._key})

    async def _forget(self, earlier: Document) -> None:
        with self._sluice.operation(COLLECTION, "delete_one"):
            await self._sluice.collection(COLLECTION).delete_one(
                {"_id": earlier["_id"], "expires_at": earlier["expires_at"]}
            )


def digest(route: str, body: BaseModel) -> bytes:
    """Tells requests apart; the order of a body's fields doesn't. Raises `Problem` (422) for one nested too deeply.

    It takes whatever JSON may be in there, valid or not: a bulk's items are judged one by one, later.
    """
    try:
        text = _json(body)
    except TypeError:  # keys that are no text
        text = _json(_with_text_keys(body))
    except RecursionError:
        raise Problem(problems.INVALID, "the body is nested too deeply") from None
    return hashlib.sha256(f"{route}\n{text}".encode()).digest()


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _with_text_keys(value: object) -> object:
    match value:
        case BaseModel():
            return _with_text_keys(_plain(value))
        case dict():
            return {str(key): _with_text_keys(each) for key, each in value.items()}
        case list() | tuple():
            return [_with_text_keys(each) for each in value]
    return value


def _plain(value: object) -> object:
    """What isn't JSON, as what is."""
    match value:
        case BaseModel():
            return {**vars(value), **(value.model_extra or {})}
        case set() | frozenset():
            return sorted(_json(each) for each in value)
        case SecretStr() | SecretBytes():
            return str(value.get_secret_value())
    return str(value)


def _no_transactions() -> Problem:
    return Problem(problems.NOT_IMPLEMENTED, f"{HEADER}: allowed where MongoDB is a replica set only")
