"""Documents in a resource's collection that aren't the resource's: answered for, not crashed on, each logged once."""

from __future__ import annotations

import logging
from typing import Any

from bson.codec_options import DatetimeConversion
from bson.errors import InvalidBSON
from pydantic import ValidationError

from app.http.errors import UNREADABLE_DOCUMENT
from app.http.problems import Problem

log = logging.getLogger(__name__)

UNREADABLE = (ValidationError, InvalidBSON)
"""What a document raises that doesn't fit its model, or can't even be decoded."""
MOST_NAMED = 1_000
_named: set[tuple[str, str]] = set()

LENIENT: dict[str, Any] = {
    "datetime_conversion": DatetimeConversion.DATETIME_AUTO,
    "unicode_decode_error_handler": "replace",
}
"""How to decode a collection so that one document that can't be decoded (a date beyond the year 9999, broken UTF-8)
fails no other."""


def problem(collection: str, key: object, error: Exception) -> Problem:
    """The answer (409) to whoever asked for that one document."""
    why = note(collection, key, error)
    return Problem(UNREADABLE_DOCUMENT, f"document {key} of {collection} doesn't fit: {why}")


def note(collection: str, key: object, error: Exception) -> str:
    """Log it, once in this worker's life; the fields that don't fit, without their values."""
    if isinstance(error, ValidationError):
        fields = ", ".join(f"{'.'.join(map(str, found['loc']))} ({found['type']})" for found in error.errors())
    else:
        fields = "it can't be decoded"
    if len(_named) < MOST_NAMED and (collection, repr(key)) not in _named:
        _named.add((collection, repr(key)))
        log.warning("document %r of collection %s can't be read: %s", key, collection, fields)
    return fields
