"""Entity tags: what If-Match and If-None-Match ask of a version."""

from __future__ import annotations

import re

from app.http import problems
from app.http.problems import Problem

_ONE = r'(?:W/)?"[!#-~\x80-\xff]*"[ \t]*'
"""RFC 9110, section 8.8.3."""
_TAGS = rf"[ \t,]*{_ONE}(?:,[ \t,]*{_ONE})*(?:,[ \t,]*)?"
"""A list of tags. What follows each comma is decided by its first letter: nothing is read more than twice."""
CONDITION = rf"^(?:[ \t]*\*[ \t]*|{_TAGS})$"
"""What an If-Match may be, for the API's document."""
_LIST = re.compile(_TAGS)
_TAG = re.compile(r'"([^"]*)"')


def versions(condition: str) -> list[int] | None:
    """The versions that an If-Match allows; None for any (`*`). Raises `Problem` (400) for what is no list of tags.

    A weak tag counts as well: nginx weakens tags when it compresses, and the version is still the same.
    """
    if _is_any(condition):
        return None
    tags = _tags(condition)
    if not tags:
        raise Problem(problems.BAD_REQUEST, 'If-Match: allowed is * or a list of tags, such as "3"')
    return [int(tag) for tag in tags if tag.isascii() and tag.isdigit() and len(tag) < 19]


def unchanged(condition: str | None, etag: str) -> bool:
    """Whether an If-None-Match says that the caller has this version already."""
    if condition is None:
        return False
    return _is_any(condition) or etag.strip('"') in (_tags(condition) or ())


def _tags(condition: str) -> list[str] | None:
    """The tags of a list, without their quotes; None for what isn't one."""
    return _TAG.findall(condition) if _LIST.fullmatch(condition) else None


def _is_any(condition: str) -> bool:
    return condition.strip(" \t") == "*"
