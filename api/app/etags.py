"""Entity tags: what If-Match and If-None-Match ask of a version."""

from __future__ import annotations

import re

from app import problems
from app.problems import Problem

_TAG = re.compile(r'\s*(?:W/)?"([^"]*)"\s*(?:,|$)')


def versions(condition: str) -> list[int] | None:
    """The versions that an If-Match allows; None for any (`*`). Raises `Problem` (400) for what is no list of tags.

    A weak tag counts as well: nginx weakens tags when it compresses, and the version is still the same.
    """
    if condition.strip() == "*":
        return None
    tags, end = [], 0
    while end < len(condition):
        tag = _TAG.match(condition, end)
        if tag is None:
            raise Problem(problems.BAD_REQUEST, 'If-Match: allowed is * or a list of tags, such as "3"')
        tags.append(tag[1])
        end = tag.end()
    return [int(tag) for tag in tags if tag.isascii() and tag.isdigit() and len(tag) < 19]


def unchanged(condition: str | None, etag: str) -> bool:
    """Whether an If-None-Match says that the caller has this version already."""
    if condition is None:
        return False
    return condition.strip() == "*" or etag.strip('"') in (tag[1] for tag in _TAG.finditer(condition))
