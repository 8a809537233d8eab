"""`Writer`: single inserts that arrive while others are in flight are sent as one unordered `insert_many`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
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
MORE_HALVES = 1
"""Besides as many as it takes to find one document that is held up: what then fails isn't any one document's fault."""

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

    async def _insert(self, batch: Batch) -> None:
        await self._attempt(batch, _Halving(len(batch).bit_length() + MORE_HALVES))

    async def _attempt(self, batch: Batch, halving: _Halving, doubt: Exception | None = None) -> None:
        """`doubt`: what an attempt before met, by which some of them may be there already."""
        # The server is to give it up soon, since one that waits there (for an open transaction, say) holds up all the
        # others; unless there are no halves to send then.
        hurried = len(batch) > 1 and halving.left > 0
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
        except PyMongoError as error:
            if hurried and _is_held_up(error):
                halving.left -= 1
                if halving.left >= 0:
                    await self._attempt_halves(batch, halving, doubt or error)
                else:  # others, which were sent at the same time, were held up, too
                    await self._attempt(batch, halving, doubt or error)
            elif len(batch) > 1 and getattr(error, "code", None) in UNREADABLE_CODES:
                await self._attempt_halves(batch, halving, doubt)
            elif doubt is None:
                raise
            else:  # whatever this attempt met, that one may have written
                raise doubt from error
            return
        self._last_took = time.monotonic() - started
        unclear: dict[Entry[RawBSONDocument, None], Mapping[str, Any]] = {}
        late = []
        for number, entry in enumerate(batch):
            if entry.future.done():
                continue
            if number in failures:
                if doubt is not None and failures[number].get("code") in DUPLICATE_KEY_CODES:
                    unclear[entry] = failures[number]
                else:
                    entry.future.set_exception(write_error(failures[number]))
            elif unconfirmed is None:
                entry.future.set_result(None)
            elif hurried and unconfirmed.get("code") == MAX_TIME_EXPIRED:
                late.append(entry)
            else:
                entry.future.set_exception(_write_concern_error(unconfirmed))
        if unconfirmed is not None and late:  # they are there, and a majority may still confirm it
            await self._attempt(late, _Halving(0), _write_concern_error(unconfirmed))
        if doubt is not None:
            await self._clear_up(unclear, doubt, unconfirmed)

    async def _attempt_halves(self, batch: Batch, halving: _Halving, doubt: Exception | None) -> None:
        """So that only the document at fault fails, or waits."""

        async def attempt(half: Batch) -> None:
            wanted = [entry for entry in half if not entry.future.done()]
            try:
                if wanted:
                    await self._attempt(wanted, halving, doubt)
            except Exception as error:
                fail_all(wanted, error)

        middle = len(batch) // 2
        await asyncio.gather(attempt(batch[:middle]), attempt(batch[middle:]))

    async def _clear_up(
        self,
        unclear: Mapping[Entry[RawBSONDocument, None], Mapping[str, Any]],
        doubt: Exception,
        unconfirmed: Mapping[str, Any] | None,
    ) -> None:
        """Their keys are taken: by themselves, if the attempt before has put them in."""
        for entry, failure in unclear.items():
            if isinstance(entry.item, _WithNewId) and dict(failure.get("keyPattern") or {}) == {"_id": 1}:
                ours = True  # nobody else knows it
            else:
                try:
                    found = await self._collection.find_one({"_id": entry.item["_id"]})
                except PyMongoError:
                    fail_all([entry], doubt)
                    continue
                ours = found is not None and found == bson.decode(entry.item.raw, self._codec)
            if not entry.future.done():
                if not ours:
                    entry.future.set_exception(write_error(failure))
                elif unconfirmed is None:
                    entry.future.set_result(None)
                else:
                    entry.future.set_exception(_write_concern_error(unconfirmed))


@dataclass
class _Halving:
    """How often a batch, and what becomes of it, may still be halved because it's held up. A slow server would hold up
    every half of a half, too."""

    left: int


def _is_held_up(error: PyMongoError) -> bool:
    """Whether the server has given up a batch, which may be there in part."""
    expired = isinstance(error, OperationFailure) and error.code == MAX_TIME_EXPIRED
    return expired and not error.has_error_label(NOTHING_WRITTEN)


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
