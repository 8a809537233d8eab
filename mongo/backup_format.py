"""What a backup is: gzipped BSON; a head, per collection its options, indexes and documents, and an end."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, BinaryIO, cast

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure, PyMongoError

FORMAT = 1
Document = dict[str, Any]
Raw = CodecOptions(RawBSONDocument)

OURS = "sluice.restoring."
"""Collections whose names begin with this belong to restores; no backup has them."""


class BackupError(Exception):
    """Why there is no backup, or why it wasn't restored; one line."""


def records(source: BinaryIO) -> Iterator[RawBSONDocument]:
    """All records of a backup, its head left out and its end included. Raises `BackupError` for one that is damaged."""
    count, end = 0, None
    try:
        with gzip.open(source, "rb") as file:
            found: Iterator[RawBSONDocument] = bson.decode_file_iter(cast("IO[bytes]", file), Raw)
            head = next(found, None)
            if head is None or head.get("sluice_backup") != FORMAT:
                raise BackupError("this is no backup that backup.sh made; nothing was changed")
            for record in found:
                if not isinstance(record.get("document", record), RawBSONDocument):
                    raise bson.errors.InvalidBSON("a document that is none")
                count += "document" in record
                end = record.get("end", end)
                yield record
    except (OSError, EOFError, zlib.error, bson.errors.InvalidBSON) as error:
        raise BackupError(f"the backup is damaged ({error}); nothing was changed") from error
    if end != count:
        raise BackupError("the backup ends too early; nothing was changed")


def plain(record: RawBSONDocument) -> Document:
    """A record as a dictionary."""
    return bson.decode(record.raw)


def brief(error: PyMongoError) -> str:
    """The server's or the driver's reason, in one line, without the values of documents."""
    details = getattr(error, "details", None) or {}
    if failures := details.get("writeErrors"):
        details = failures[0]
    code = details.get("code") or (error.code if isinstance(error, OperationFailure) else None)
    if code == DUPLICATE_KEY:
        return f"several documents have the same {', '.join(details.get('keyPattern', {})) or 'key'}"
    text = str(details.get("errmsg") or error)
    for rest in (", full error:", ", Timeout:", " to execute command {"):
        text = text.partition(rest)[0]
    return " ".join(_TIMEOUTS.sub("", text).split())[:300]


DUPLICATE_KEY = 11000
_TIMEOUTS = re.compile(r" \(configured timeouts:[^()]*\)")
"""The driver's, after each address."""
