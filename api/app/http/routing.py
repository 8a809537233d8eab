"""Which route a request was given to, and which paths belong together."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope

NO_ROUTE = "none"
TEMPLATE = "sluice.template"
"""Where `dispatch` writes into a scope which route it has found: its path with the prefixes of all its routers."""
MOUNT = "sluice.mount"
"""The same of a mounted application, whose own route's path follows."""


def template(scope: Scope) -> str:
    """The template of the route that the request was given to; `NO_ROUTE` before that, and where no route fits."""
    found: str | None = scope.get(TEMPLATE)
    if found is not None:
        return found
    route = scope.get("route")
    return scope.get(MOUNT, "") + getattr(route, "path_format", getattr(route, "path", "")) or NO_ROUTE


def under(*tops: str) -> Callable[[str], bool]:
    """Whether a path is one of these or below it; not one that only begins alike, such as /healthcare."""
    exactly, below = frozenset(tops), tuple(f"{top}/" for top in tops)
    return lambda path: path in exactly or path.startswith(below)


is_unlimited = under("/health", "/metrics")
"""Paths that no deadline cuts short: they are for finding out why others are."""
