"""Put a backup's collections in the place of those in a database: all of it first into drafts, then swapped.

What stands in the database stays in force: a collection keeps the schema and the indexes that it has now, and gets
those of the backup that it lacks. Documents are restored whether or not they fit; those that don't are named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure, PyMongoError, WriteError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from mongo.backup_format import OURS, BackupError, Document, Raw, brief, plain, records
from mongo.interruptions import ignore_them
from mongo.restore_lock import LOCK, RestoreLock

BATCH_BYTES = 4 << 20
LONGEST_NAME = 255
"""Bytes of database and collection together, as MongoDB allows."""
SWAP_SECONDS = 60.0
"""How long an election may hold a swap up."""
NAMED = 3
"""How many documents that don't fit are named."""
VALIDATION = {"validator": {}, "validationLevel": "strict", "validationAction": "error"}
"""A collection's options that check its documents, with the server's defaults."""
DOCUMENT_VALIDATION = 121
INDEX_CONFLICTS = frozenset({85, 86})

Say = Callable[[str], None]


def restore(database: Database[Document], source: BinaryIO, say: Say) -> int:
    """Replace the collections that the backup has; how many documents they got. `say` is told what is noteworthy.

    Raises `BackupError` when it is damaged, when another restore is under way, or when it can't be done. Until all
    documents are stored and checked nothing is changed; from then on it isn't interrupted.
    """
    with RestoreLock(database, say) as lock:
        if lock.former and lock.former["swapping"]:
            names = ", ".join(lock.former["swapping"])
            say(f"an earlier restore was killed while it swapped; these may be of two backups: {names}")
        _drop_drafts(database)  # of restores that were killed
        drafts: list[_Draft] = []
        try:
            _fill(database, lock, source, drafts)
            for draft in drafts:
                lock.check()
                draft.complete(say)
        except BaseException as error:
            ignore_them()
            with suppress(PyMongoError):  # which is what ended it, then
                _drop_drafts(database, lock.run)
            if isinstance(error, PyMongoError):
                raise BackupError(f"{brief(error)}; nothing was changed") from error
            raise
        ignore_them()
        try:
            _swap(lock, drafts)
            for draft in drafts:
                draft.read_back(say)
        finally:
            with suppress(PyMongoError):
                _drop_drafts(database, lock.run)
    return sum(draft.count for draft in drafts)


def _fill(database: Database[Document], lock: RestoreLock, source: BinaryIO, drafts: list[_Draft]) -> None:
    there = {info["name"]: dict(info) for info in database.list_collections()}
    batch: list[RawBSONDocument] = []
    size = 0
    for record in records(source):
        if "document" in record:
            batch.append(record["document"])
            size += len(record["document"].raw)
        if batch and (size > BATCH_BYTES or "document" not in record):
            if not drafts:
                raise BackupError("the backup is damaged (documents of no collection); nothing was changed")
            lock.check()
            drafts[-1].add(batch)
            batch, size = [], 0
        if "collection" in record:
            name = f"{OURS}{lock.run}.{len(drafts)}"
            draft = _Draft(database, name, plain(record), there.get(str(record["collection"])))
            if draft.target in {other.target for other in drafts}:
                raise BackupError(f"the backup is damaged (it has {draft.target} twice); nothing was changed")
            drafts.append(draft)
            draft.create()


def _swap(lock: RestoreLock, drafts: list[_Draft]) -> None:
    done: list[str] = []
    try:
        lock.begin_swap([draft.target for draft in drafts])
        for draft in drafts:
            draft.put_in_place()
            done.append(draft.target)
    except PyMongoError as error:
        left = [draft.target for draft in drafts[len(done) :]]
        reason = f"{brief(error)}; restored: {', '.join(done) or 'nothing'}; not restored: {', '.join(left)}"
        if isinstance(error, AutoReconnect):
            reason += f"; not known of {left[0]}"
        raise BackupError(f"{reason}; run it again") from error


def _drop_drafts(database: Database[Document], run: str = "") -> None:
    """Of one run, or of all. Only who holds the lock may."""
    for name in database.list_collection_names():
        if name.startswith(f"{OURS}{run}") and name != LOCK:
            database.drop_collection(name)


class _Draft:
    """A collection to be: filled under a name of its own."""

    def __init__(self, database: Database[Document], name: str, described: Document, present: Document | None) -> None:
        """`described` as in the backup; `present`: what has the collection's name now. Raises `BackupError`."""
        self.count = 0
        try:
            self.target = str(described["collection"])
            self._options = {key: value for key, value in described["options"].items() if key != "uuid"}
            self._backed_up = [dict(index) for index in described["indexes"]]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BackupError(f"the backup is damaged ({error!r}); nothing was changed") from error
        if "viewOn" in self._options or "timeseries" in self._options or not _is_name(described["collection"]):
            raise BackupError(f"the backup is damaged ({self.target!r} is no collection of one); nothing was changed")
        self._database = database
        self._name = name
        self._uuid: Any = None
        self._present = self._checked(present)
        now = self._present.get("options", {})
        self._validation = _validation(now) or _validation(self._options)
        self._other_schema = bool(_validation(now)) and _validation(now) != _validation(self._options)
        self._checks_at_once = False

    def _checked(self, present: Document | None) -> Document:
        if len(f"{self._database.name}.{self.target}".encode()) > LONGEST_NAME:
            raise BackupError(f"{self.target}: its name is too long for database {self._database.name}")
        if present is not None and present["type"] != "collection":
            raise BackupError(f"{self.target} is a {present['type']} here, no collection; nothing was changed")
        return present or {}

    @property
    def _collection(self) -> Collection[Any]:
        """Documents go in as they are, to a majority of the members."""
        return self._database.get_collection(
            self._name,
            codec_options=Raw,
            write_concern=WriteConcern("majority"),
            read_concern=ReadConcern("majority"),
        )

    def create(self) -> None:
        """Without a schema, which comes at the end; a user that can't add one then gets it now."""
        rest = {key: value for key, value in self._options.items() if key not in VALIDATION}
        self._database.command("create", self._name, **rest)
        if self._validation:
            try:
                self._database.command("collMod", self._name)
            except OperationFailure:
                self._checks_at_once = True
                self._database.drop_collection(self._name)
                self._database.command("create", self._name, **rest, **self._validation)
        self._uuid = self._found(self._name)["info"]["uuid"]

    def add(self, batch: list[RawBSONDocument]) -> None:
        try:
            self._collection.insert_many(batch, ordered=False)
        except BulkWriteError as error:
            codes = {failure["code"] for failure in error.details.get("writeErrors", ())}
            if self._checks_at_once and DOCUMENT_VALIDATION in codes:
                message = "documents don't fit the schema; to restore them all the same takes a user with collMod"
                raise BackupError(f"{self.target}: {message}; nothing was changed") from error
            raise
        self.count += len(batch)

    def complete(self, say: Say) -> None:
        """Check what is stored, then add indexes and schema. Raises `BackupError`."""
        stored = self._collection.count_documents({})
        if stored != self.count and not (self._options.get("capped") and stored < self.count):
            raise BackupError(
                f"{self.target}: {self.count:,} documents were read, {stored:,} stored; nothing was changed"
            )
        self._add_indexes(say)
        if self._validation and not self._checks_at_once:
            self._database.command("collMod", self._name, **self._validation)
        if self._other_schema:
            say(f"{self.target}: the schema that the collection has now stays; the backup's is another")
        self._name_misfits(say)
        found = self._found(self._name)
        if found.get("info", {}).get("uuid") != self._uuid or _validation(found["options"]) != self._validation:
            raise BackupError(f"{self.target}: its draft was changed by somebody else; nothing was changed")

    def _add_indexes(self, say: Say) -> None:
        present = list(self._database[self.target].list_indexes()) if self._present else []
        for index, error in self._build(present):
            say(f"{self.target}: index {index['name']}, which the collection has now, is left out: {brief(error)}")
        for index, error in self._build(self._backed_up):
            if error.code not in INDEX_CONFLICTS:
                raise BackupError(f"{self.target}: index {index['name']}: {brief(error)}; nothing was changed")
            say(f"{self.target}: index {index['name']} stays as the collection has it now; the backup's is another")

    def _build(self, indexes: list[Any]) -> list[tuple[Document, OperationFailure]]:
        """Build them, in one pass where that works; those that can't be built, with the reason."""
        # What a collection has of its own is the default for its indexes, and isn't told of those that differ.
        default = {"collation": {"locale": "simple"}} if "collation" in self._options else {}
        wanted = [
            default | {key: value for key, value in index.items() if key != "ns"}
            for index in indexes
            if index["name"] != "_id_" and not index.get("clustered")
        ]
        if not wanted:
            return []
        try:
            self._database.command("createIndexes", self._name, indexes=wanted)
        except OperationFailure as error:
            if len(wanted) == 1:
                return [(wanted[0], error)]
            return [failed for index in wanted for failed in self._build([index])]
        return []

    def _name_misfits(self, say: Say) -> None:
        """Count and name what doesn't fit the schema."""
        if not self._validation or self._checks_at_once:
            return
        query = {"$nor": [self._validation["validator"]]}
        misfits = self._collection.count_documents(query)
        if misfits:
            named = [
                f"{plain(found)['_id']}{self._reason(found)}" for found in self._collection.find(query, limit=NAMED)
            ]
            more = ", …" if misfits > NAMED else ""
            say(f"{self.target}: {misfits:,} documents don't fit its schema: {', '.join(named)}{more}")

    def _reason(self, document: RawBSONDocument) -> str:
        """Why a document doesn't fit; asked of the server, which refuses it a second time in any case."""
        try:
            self._collection.insert_one(document)
        except WriteError as error:
            fields = sorted(set(_complaints((error.details or {}).get("errInfo", {}).get("details", {}))))
            return f" ({', '.join(fields)})" if fields else ""
        return ""

    def put_in_place(self) -> None:
        """Swap; an election meanwhile is waited for. Raises what the driver raises."""
        end = time.monotonic() + SWAP_SECONDS
        while True:
            try:
                self._collection.rename(self.target, dropTarget=True)
            except (AutoReconnect, OperationFailure) as error:
                with suppress(AutoReconnect):
                    if self._is_in_place():
                        return
                if not isinstance(error, AutoReconnect) or time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def read_back(self, say: Say) -> None:
        """Raises `BackupError` if the collection isn't the one that was put there."""
        if not self._is_in_place():
            raise BackupError(f"{self.target} was restored, and replaced by somebody else at once")
        count = self._database[self.target].count_documents({})
        if count != self.count:
            say(f"{self.target}: {self.count:,} documents restored, {count:,} there now: it is being written to")

    def _is_in_place(self) -> bool:
        found: bool = self._found(self.target).get("info", {}).get("uuid") == self._uuid
        return found

    def _found(self, name: str) -> Document:
        infos: list[Document] = [dict(info) for info in self._database.list_collections(filter={"name": name})]
        return infos[0] if infos else {"options": {}}


def _validation(options: Document) -> Document:
    """The collection's own check of documents, in full; empty if it has none."""
    return {key: options.get(key, default) for key, default in VALIDATION.items()} if options.get("validator") else {}


def _is_name(name: Any) -> bool:
    """Whether a backup may have a collection of this name."""
    return isinstance(name, str) and bool(name) and not (name.startswith(("system.", OURS)) or set(name) & {"$", "\0"})


def _complaints(details: Any, path: str = "") -> list[str]:
    """`field: rule` for each rule that a document breaks, from the server's own explanation; no values."""
    if isinstance(details, list):
        return [complaint for part in details for complaint in _complaints(part, path)]
    name = (
        f"{path}.{details['propertyName']}" if path and "propertyName" in details else details.get("propertyName", path)
    )
    rule = details.get("operatorName", "")
    if missing := details.get("missingProperties") or details.get("additionalProperties"):
        return [f"{f'{path}.' if path else ''}{field}: {rule}" for field in missing]
    inner = [details[key] for key in ("schemaRulesNotSatisfied", "propertiesNotSatisfied", "details") if key in details]
    if inner and rule != "items":
        return [complaint for part in inner for complaint in _complaints(part, name)]
    return [f"{name}: {rule}" if name else rule]
