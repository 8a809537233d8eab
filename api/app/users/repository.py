"""Users in MongoDB: each method is one operation there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bson import ObjectId
from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.errors import BulkWriteError, WriteError

from app.data import unreadable
from app.data.collections import ensure
from app.data.unreadable import LENIENT, UNREADABLE
from app.users.listing import Listing
from app.users.model import READABLE, SCHEMA, NewUser, User, UserChange, UserPage
from sluice import Sluice, write_error

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase

COLLECTION = "users"
Document = dict[str, Any]

INDEXES = [
    IndexModel([("email", ASCENDING)], name="email", unique=True),
    *(IndexModel([(field, ASCENDING), ("_id", ASCENDING)], name=field) for field in ("created_at", "name", "age")),
    *(
        IndexModel([(field, ASCENDING), ("created_at", ASCENDING), ("_id", ASCENDING)], name=field)
        for field in ("city", "tags")
    ),
]
"""One for each order, which serves both directions, and for each filter that picks few."""


async def prepare(database: AsyncDatabase[Document]) -> str | None:
    """Make the collection, its schema and its indexes what they should be; see `app.data.collections.ensure`."""
    return await ensure(database, COLLECTION, schema=SCHEMA, indexes=INDEXES)


class Users:
    """The users of one Sluice; one for each request that asks for them."""

    def __init__(self, sluice: Sluice) -> None:
        self._sluice = sluice

    @property
    def _collection(self) -> AsyncCollection[Document]:
        return self._sluice.collection(COLLECTION, LENIENT)

    async def create(self, new: NewUser, session: AsyncClientSession | None = None) -> User:
        """With others at once, or in this session's transaction. Raises `DuplicateKeyError` when the e-mail address is
        taken."""
        document = _document(new, _now())
        with self._sluice.operation(COLLECTION, "insert_one"):
            if session is None:
                await self._sluice.writer(COLLECTION).insert(document)
            else:
                await self._collection.insert_one(document, session=session)
        return User.of(document)

    async def create_many(
        self, new: Sequence[NewUser], session: AsyncClientSession | None = None
    ) -> list[ObjectId | WriteError]:
        """For each user its id, or why it was not created (taken, refused).

        In a session's transaction all that isn't taken is created, or nothing. Raises `BulkWriteError` when others were
        created, but not confirmed.
        """
        now = _now()
        documents = [_document(user, now) for user in new]
        if session is not None:
            return await self._create_all(documents, session)
        outcomes: list[ObjectId | WriteError] = [document.setdefault("_id", ObjectId()) for document in documents]
        try:
            with self._sluice.operation(COLLECTION, "insert_many"):
                await self._collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failures = error.details.get("writeErrors", [])
            if error.details.get("writeConcernErrors") and len(failures) < len(documents):
                raise
            for failure in failures:
                outcomes[failure["index"]] = write_error(failure)
        return outcomes

    async def _create_all(self, documents: list[Document], session: AsyncClientSession) -> list[ObjectId | WriteError]:
        """The first error ends a transaction, so what is taken is found out before."""
        emails = [document["email"] for document in documents]
        with self._sluice.operation(COLLECTION, "find"):
            found = await self._collection.find({"email": {"$in": emails}}, {"email": 1}, session=session).to_list()
        taken = {document["email"] for document in found}
        outcomes: list[ObjectId | WriteError] = []
        free = []
        for document in documents:
            email = document["email"]
            if email in taken:
                outcomes.append(write_error({"code": 11000, "errmsg": "taken", "keyPattern": {"email": 1}}))
            else:
                taken.add(email)
                free.append(document)
                outcomes.append(document.setdefault("_id", ObjectId()))
        if free:
            with self._sluice.operation(COLLECTION, "insert_many"):
                await self._collection.insert_many(free, session=session)
        return outcomes

    async def get(self, user_id: ObjectId) -> User | None:
        """Raises `Problem` (409) for a document that is no user."""
        try:
            with self._sluice.operation(COLLECTION, "find_one"):
                document = await self._sluice.reader(COLLECTION).get(user_id)
            return User.of(document) if document is not None else None
        except UNREADABLE as error:
            raise unreadable.problem(COLLECTION, user_id, error) from None

    async def _find(self, query: Document, listing: Listing) -> list[tuple[Document, User | None]]:
        """The documents of a page and one more, each with its user; None where it is none."""
        with self._sluice.operation(COLLECTION, "find"):
            documents = await self._sluice.find(
                COLLECTION, query, sort=listing.order, limit=listing.limit + 1, codec_options=LENIENT
            )
        return [(document, _user_or_none(document)) for document in documents]

    async def list(self, listing: Listing) -> UserPage:
        """One page. Raises `Problem` (422) for a cursor that isn't one of this listing."""
        query = listing.query()
        found = await self._find(query, listing)
        others = sum(user is None for _, user in found)
        if others:  # again without them: a page must end with one from which the next can continue
            found = await self._find({"$and": [query, READABLE]}, listing)
        page = found[: listing.limit]
        return UserPage(
            items=[user for _, user in page if user is not None],
            next_cursor=listing.next_cursor(page[-1][0]) if len(found) > len(page) else None,
            unreadable=others,
        )

    async def update(self, user_id: ObjectId, change: UserChange, versions: Sequence[int] | None) -> User | None:
        """The changed user; None if there is none, or none with one of these versions (None: any), or it is no user.

        Raises `DuplicateKeyError` when the new e-mail address is taken.
        """
        changes = {"$set": {**change.model_dump(exclude_unset=True), "updated_at": _now()}, "$inc": {"version": 1}}
        with self._sluice.operation(COLLECTION, "find_one_and_update"):
            document = await self._collection.find_one_and_update(
                {"$and": [_of_version(user_id, versions), READABLE]}, changes, return_document=ReturnDocument.AFTER
            )
        return User.of(document) if document is not None else None

    async def delete(self, user_id: ObjectId, versions: Sequence[int] | None) -> bool:
        """Whether there was such a user, with one of these versions (None: any)."""
        with self._sluice.operation(COLLECTION, "delete_one"):
            result = await self._collection.delete_one(_of_version(user_id, versions))
        return result.deleted_count == 1


def _user_or_none(document: Document) -> User | None:
    try:
        return User.of(document)
    except UNREADABLE as error:
        unreadable.note(COLLECTION, document["_id"], error)
        return None


def _of_version(user_id: ObjectId, versions: Sequence[int] | None) -> Document:
    return {"_id": user_id} if versions is None else {"_id": user_id, "version": {"$in": list(versions)}}


def _document(new: NewUser, now: datetime) -> Document:
    return {**new.model_dump(), "created_at": now, "updated_at": now, "version": 1}


def _now() -> datetime:
    """Now, as precisely as MongoDB keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
