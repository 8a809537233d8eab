"""`Writer`: single inserts that arrive while others are in flight are sent as one unordered `insert_many`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    WriteConcernError,
    WriteError,
    WTimeoutError,
)

from sluice.coalescing.coalescer import Coalescer, Entry, Limits, fail_all
from sluice.deadline import MAX_TIME_EXPIRED
from sluice.errors import NOTHING_WRITTEN
from sluice.statistics.snapshot import CoalescerStats

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection

Document = dict[str, Any]

LARGEST_BATCHED = 1 << 20
"""Bytes; a larger document goes alone, and meets the server's own limit there."""
DUPLICATE_KEY_CODES = frozenset({11000, 11001, 12582})
UNREADABLE_CODES = frozenset({15, 22})
"""Overflow (nested too deeply), InvalidBSON: a document because of which the server didn't read the command at all."""


class Writer:
    """Inserts documents into one collection, each with an outcome of its own. Made by `Sluice.writer`.

    An insert is acknowledged as the collection's write concern says. When a batch's outcome is unknown, every caller in
    it is told so with the driver's error.
    """

    def __init__(
        self, collection: AsyncCollection[Document], stats: CoalescerStats, *, limits: Limits | None = None
    ) -> None:
        self._collection = collection
        self._codec: bson.CodecOptions[Document] = collection.codec_options
        self._raw = self._codec.with_options(document_class=RawBSONDocument)
        self._coalescer: Coalescer[RawBSONDocument, None] = Coalescer(stats, limits or Limits(), self._insert)

    async def insert(self, document: Document) -> Any:
        """Insert a document; its `_id`, which it is given if it has none.

        Raises what a single `insert_one` raises (`DuplicateKeyError`, `WriteError`, …), `QueueFull` when too many
        inserts wait, and at once what can't be encoded.
        """
        if "_id" not in document:
            document["_id"] = ObjectId()
        lane = self._coalescer.take_lane()
        if lane is not None:
            try:
                await self._collection.insert_one(document)
            finally:
                self._coalescer.leave_lane(lane)
            return document["_id"]
        encoded = bson.encode(document, codec_options=self._codec)
        if len(encoded) > LARGEST_BATCHED:
            await self._collection.insert_one(document)
        else:
            await self._coalescer.join(RawBSONDocument(encoded, self._raw), len(encoded))
        return document["_id"]

    async def close(self) -> None:
        await self._coalescer.close()

    async def _insert(self, batch: Sequence[Entry[RawBSONDocument, None]]) -> None:
        failures: dict[int, Mapping[str, Any]] = {}
        unconfirmed: Mapping[str, Any] | None = None
        try:
            await self._collection.insert_many([entry.item for entry in batch], ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            failures = {failure["index"]: failure for failure in details.get("writeErrors", ())}
            unconfirmed = next(iter(details.get("writeConcernErrors", ())), None)
        except OperationFailure as error:
            if error.code not in UNREADABLE_CODES or len(batch) == 1:
                raise
            await self._insert_halves(batch)
            return
        for number, entry in enumerate(batch):
            if entry.future.done():
                continue
            if number in failures:
                entry.future.set_exception(write_error(failures[number]))
            elif unconfirmed is not None:
                entry.future.set_exception(_write_concern_error(unconfirmed))
            else:
                entry.future.set_result(None)

    async def _insert_halves(self, batch: Sequence[Entry[RawBSONDocument, None]]) -> None:
        """Repeat what surely wrote nothing, so that only the document at fault fails."""
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            wanted = [entry for entry in half if not entry.future.done()]
            try:
                if wanted:
                    await self._insert(wanted)
            except Exception as error:
                fail_all(wanted, error)


def write_error(failure: Mapping[str, Any]) -> WriteError:
    """As the driver makes it of a single insert's failure: that document is not there."""
    details = {name: value for name, value in failure.items() if name not in ("index", "op")} | {"index": 0}
    kind = DuplicateKeyError if failure.get("code") in DUPLICATE_KEY_CODES else WriteError
    error = kind(failure.get("errmsg", ""), failure.get("code"), details)
    error._add_error_label(NOTHING_WRITTEN)
    return error


def _write_concern_error(failure: Mapping[str, Any]) -> WriteConcernError:
    """As the driver makes it of a single insert's answer: the document is there, and may not stay."""
    timed_out = failure.get("code") == MAX_TIME_EXPIRED or (failure.get("errInfo") or {}).get("wtimeout")
    kind = WTimeoutError if timed_out else WriteConcernError
    return kind(failure.get("errmsg", ""), failure.get("code"), dict(failure))
