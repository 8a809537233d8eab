"""`Reader`: point reads by `_id` that arrive while others are in flight are sent as one query."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import bson
from bson import ObjectId
from bson.binary import Binary
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo.errors import PyMongoError

from sluice.coalescing.coalescer import Coalescer, Entry, Limits
from sluice.drivers.finding import Query, find
from sluice.statistics.snapshot import CoalescerStats

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection

Document = dict[str, Any]
Key = tuple[int, bytes | float | int]

# Types whose equality in BSON is known here: numbers by value whatever their type, all else by type and bytes. Other
# keys (embedded documents, decimals, patterns, …) go alone, and so mean what they mean in a single query.
BATCHED = frozenset({ObjectId, str, int, Int64, float, bool, bytes, Binary, uuid.UUID, datetime})
_NUMBER = 0
_STRING = 0x02
_OBJECT_ID = 0x07
_FIXED = {_OBJECT_ID: 12, 0x08: 1, 0x09: 8}
_PREFIX = len(b"\x00\x00\x00\x00\x07_id\x00")
_OBJECT_ID_SIZE = _PREFIX + 12 + len(b"\x00")


class Reader:
    """Reads documents of one collection by `_id`. Made by `Sluice.reader`.

    Read preference, read concern, codec options and projection are the reader's, for every read alike.
    """

    def __init__(
        self,
        collection: AsyncCollection[Document],
        stats: CoalescerStats,
        *,
        projection: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Raises `ValueError` for a projection without `_id`, by which answers find their callers."""
        if projection is not None and not projection.get("_id", True):
            raise ValueError("a Reader's projection must keep _id")
        self._collection = collection
        self._codec: CodecOptions[Document] = collection.codec_options
        raw: CodecOptions[Any] = collection.codec_options.with_options(document_class=RawBSONDocument)
        self._raw = collection.with_options(codec_options=raw)
        self._projection = None if projection is None else dict(projection)
        self._coalescer: Coalescer[tuple[Key, Any], bytes | _Alone | None] = Coalescer(
            stats, limits or Limits(), self._fetch
        )
        self._collated: bool | None = None

    async def get(self, key: object) -> Document | None:
        """The document with this `_id`, the caller's own copy; None if there is none.

        The key means what it means in `find_one({"_id": key})`: one of operators (`{"$gt": 0}`) or a pattern asks for
        whatever fits. What comes from outside is checked before.

        Raises what a single `find_one` raises, and `QueueFull` when too many reads wait.
        """
        lane = self._coalescer.take_lane()
        if lane is not None:
            try:
                return await self._find_one(key)
            finally:
                self._coalescer.leave_lane(lane)
        matched = self._match(key)
        if matched is None:
            return await self._find_one(key)
        canonical, size = matched
        found = await self._coalescer.join((canonical, key), size)
        if isinstance(found, _Alone):
            return await self._find_one(key)
        return None if found is None else bson.decode(found, self._codec)

    async def close(self) -> None:
        await self._coalescer.close()

    async def _find_one(self, key: object) -> Document | None:
        found = await find(self._collection, Query({"_id": key}, self._projection, limit=1))
        return found[0] if found else None

    def _match(self, key: object) -> tuple[Key, int] | None:
        """What BSON takes for the same key, and its size; None for a key that goes alone."""
        if type(key) is ObjectId:  # the usual case, without a detour through its encoding
            return (_OBJECT_ID, key.binary), _OBJECT_ID_SIZE
        if type(key) not in BATCHED:
            return None
        encoded = bson.encode({"_id": key}, codec_options=self._codec)
        canonical = key_of(encoded)
        return None if canonical is None else (canonical, len(encoded))

    async def _fetch(self, batch: Sequence[Entry[tuple[Key, Any], bytes | _Alone | None]]) -> None:
        keys = {entry.item[0]: entry.item[1] for entry in batch}
        found: dict[Key | None, bytes] = {}
        if len(keys) == 1:
            query: Document = {"_id": next(iter(keys.values()))}
        else:
            query = {"_id": {"$in": list(keys.values())}}
        for document in await find(self._raw, Query(query, self._projection)):
            found[key_of(document.raw)] = document.raw
        # A document that nobody here asked for by these bytes (a collation, say): its asker must ask alone.
        strange = not found.keys() <= keys.keys() or await self._may_match_several(keys, found)
        for entry in batch:
            if not entry.future.done():
                raw_or_none = found.get(entry.item[0])
                entry.future.set_result(ALONE if raw_or_none is None and strange else raw_or_none)

    async def _may_match_several(self, keys: Mapping[Key, Any], found: Mapping[Key | None, bytes]) -> bool:
        """Whether a string without an answer may mean a document that was found by another string (a collation)."""
        strings = [key for key in keys if key[0] == _STRING]
        answered = sum(key in found for key in strings)
        if not answered or answered == len(strings):
            return False
        if self._collated is None:
            try:
                self._collated = "collation" in await self._collection.options()
            except PyMongoError:  # not permitted, say: to ask again is right in any case
                return True
        return self._collated


class _Alone:
    """Instead of an answer: ask again by yourself."""


ALONE = _Alone()


def key_of(document: bytes) -> Key | None:
    """What identifies a BSON document by its first element, `_id`: equal for keys that MongoDB takes for equal.

    None for types that are not compared here, for NaN, and for documents that don't begin with `_id`.
    """
    if document[5:_PREFIX] != b"_id\x00":
        return None
    kind = document[4]
    value = memoryview(document)[_PREFIX:]
    if kind == 0x10:
        return (_NUMBER, int(struct.unpack_from("<i", value)[0]))
    if kind == 0x12:
        return (_NUMBER, int(struct.unpack_from("<q", value)[0]))
    if kind == 0x01:
        number = float(struct.unpack_from("<d", value)[0])
        return None if number != number else (_NUMBER, number)
    if kind == _STRING:
        length = 4 + struct.unpack_from("<i", value)[0]
    elif kind == 0x05:
        length = 5 + struct.unpack_from("<i", value)[0]
    elif kind in _FIXED:
        length = _FIXED[kind]
    else:
        return None
    return (kind, bytes(value[:length]))
