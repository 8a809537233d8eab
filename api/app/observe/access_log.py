"""The access log: by default only what deserves a look, since nginx logs every request anyway."""

from __future__ import annotations

import logging
from typing import Literal

from starlette.types import Scope

from app.http.routing import template

log = logging.getLogger(__name__)

SLOW = 1.0


class AccessLog:
    """One line per request: `all`, `problems` (server errors and requests of more than a second), or `off`.

    Problems come up to the log's limit for each route and status; `all` means all.
    """

    def __init__(self, mode: Literal["off", "problems", "all"]) -> None:
        self._mode = mode

    def write(self, scope: Scope, status: int, seconds: float) -> None:
        """Log a request that took `seconds` and was answered with `status` (0: it never was)."""
        if self._mode == "off":
            return
        problem = status >= 500 or status == 0 or seconds >= SLOW
        if self._mode != "all" and not problem:
            return
        level = logging.WARNING if problem else logging.INFO
        if log.isEnabledFor(level):
            route = template(scope)
            log.log(
                level,
                "%s %s (%s) answered %d in %.3f s",
                scope["method"],
                scope["path"],
                route,
                status,
                seconds,
                extra={"kind": f"{scope['method']} ({route}) answered {status}", "unlimited": self._mode == "all"},
            )
