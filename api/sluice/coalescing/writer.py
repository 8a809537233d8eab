"""`Writer`: single inserts that arrive while others are in flight are sent as one unordered `insert_many`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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

from sluice import deadline
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

HELD_UP = 1.0
"""Seconds that a batch may take on the server; four times what the last one took, where that is more."""


Batch = Sequence[Entry[RawBSONDocument, None]]


class _WithNewId(RawBSONDocument):
    """It was given an `_id` here, which nobody else can have."""

    __slots__ = ()


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
        self._last_took = 0.0
        self._coalescer: Coalescer[RawBSONDocument, None] = Coalescer(stats, limits or Limits(), self._insert)

    async def insert(self, document: Document) -> Any:
        """Insert a document; its `_id`, which it is given if it has none.

        Raises what a single `insert_one` raises (`DuplicateKeyError`, `WriteError`, …), `QueueFull` when too many
        inserts wait, and at once what can't be encoded.
        """
        kind = RawBSONDocument
        if "_id" not in document:
            document["_id"] = ObjectId()
            kind = _WithNewId
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
            await self._coalescer.join(kind(encoded, self._raw), len(encoded))
        return document["_id"]

    def _patience(self) -> float:
        """Seconds on the server for a batch: more where everything is slow, less where little time is left."""
        left = deadline.remaining()
        return min(max(HELD_UP, 4 * self._last_took), math.inf if left is None else left / 2)

    async def close(self) -> None:
        await self._coalescer.close()

    async def _insert(self, batch: Batch, *, again: bool = False, hurried: bool = True) -> None:
        """`again`: some of them may be there already, by an attempt before. `hurried`: the server is to give it up
        soon, since one that waits there (for an open transaction, say) holds up all the others."""
        hurried = hurried and len(batch) > 1
        started = time.monotonic()
        failures: dict[int, Mapping[str, Any]] = {}
        unconfirmed: Mapping[str, Any] | None = None
        try:
            with deadline.hurry(self._patience()) if hurried else nullcontext():
                await self._collection.insert_many([entry.item for entry in batch], ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            failures = {failure["index"]: failure for failure in details.get("writeErrors", ())}
            unconfirmed = next(iter(details.get("writeConcernErrors", ())), None)
        except OperationFailure as error:
            held_up = hurried and error.code == MAX_TIME_EXPIRED
            if not held_up and (error.code not in UNREADABLE_CODES or len(batch) == 1):
                raise
            await self._insert_halves(batch, again or held_up)
            return
        self._last_took = time.monotonic() - started
        there = [batch[number] for number, failure in failures.items() if again and _is_of_its_id(failure)]
        ours = await self._ours(there) if there else set()
        late = []
        for number, entry in enumerate(batch):
            if entry.future.done():
                continue
            if number in failures and entry not in ours:
                entry.future.set_exception(write_error(failures[number]))
            elif unconfirmed is None:
                entry.future.set_result(None)
            elif hurried and unconfirmed.get("code") == MAX_TIME_EXPIRED:
                late.append(entry)
            else:
                entry.future.set_exception(_write_concern_error(unconfirmed))
        if late:  # they are there, and a majority may still confirm it
            await self._insert(late, again=True, hurried=False)

    async def _insert_halves(self, batch: Batch, again: bool) -> None:
        """So that only the document at fault fails, or waits."""

        async def insert(half: Batch) -> None:
            wanted = [entry for entry in half if not entry.future.done()]
            try:
                if wanted:
                    await self._insert(wanted, again=again)
            except Exception as error:
                fail_all(wanted, error)

        middle = len(batch) // 2
        await asyncio.gather(insert(batch[:middle]), insert(batch[middle:]))

    async def _ours(self, there: Batch) -> set[Entry[RawBSONDocument, None]]:
        """Those of which an attempt before has put in what is there under their `_id`."""
        ours = {entry for entry in there if isinstance(entry.item, _WithNewId)}  # nobody else knows it
        others = {entry for entry in there if entry not in ours}
        for entry in others:
            found = await self._collection.find_one({"_id": entry.item["_id"]})
            if found is not None and found == bson.decode(entry.item.raw, self._codec):
                ours.add(entry)
        return ours


def _is_of_its_id(failure: Mapping[str, Any]) -> bool:
    """Whether something with this document's `_id` is there."""
    return failure.get("code") in DUPLICATE_KEY_CODES and dict(failure.get("keyPattern") or {}) == {"_id": 1}


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
