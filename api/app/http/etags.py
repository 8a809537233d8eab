"""Entity tags: what If-Match and If-None-Match ask of a version."""

from __future__ import annotations

import re

from app.http import problems
from app.http.problems import Problem

_TAG = re.compile(r'[ \t,]*(?:W/)?"([^"]*)"[ \t]*(?:,[ \t,]*|$)')
"""One tag after the other, each matched where the one before it ended: searched for, it would take quadratic time."""


def versions(condition: str) -> list[int] | None:
    """The versions that an If-Match allows; None for any (`*`). Raises `Problem` (400) for what is no list of tags.

    A weak tag counts as well: nginx weakens tags when it compresses, and the version is still the same.
    """
    if condition.strip() == "*":
        return None
    tags = _tags(condition)
    if not tags:
        raise Problem(problems.BAD_REQUEST, 'If-Match: allowed is * or a list of tags, such as "3"')
    return [int(tag) for tag in tags if tag.isascii() and tag.isdigit() and len(tag) < 19]


def unchanged(condition: str | None, etag: str) -> bool:
    """Whether an If-None-Match says that the caller has this version already."""
    if condition is None:
        return False
    return condition.strip() == "*" or etag.strip('"') in (_tags(condition) or ())


def _tags(condition: str) -> list[str] | None:
    """The tags of a list, without their quotes; None for what isn't one."""
    tags, end = [], 0
    while end < len(condition):
        tag = _TAG.match(condition, end)
        if tag is None:
            return None
        tags.append(tag[1])
        end = tag.end()
    return tags
