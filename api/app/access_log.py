"""The access log: by default only what deserves a look, since nginx logs every request anyway."""

from __future__ import annotations

import logging
import time
from typing import Literal

from starlette.types import Scope

from app.routing import template

log = logging.getLogger(__name__)

SLOW = 1.0
PER_SECOND = 20
"""Most problems that are logged in one second: under overload, logging each refusal would cost more than refusing."""


class AccessLog:
    """One line per request: `all`, `problems` (server errors and requests of more than a second), or `off`."""

    def __init__(self, mode: Literal["off", "problems", "all"]) -> None:
        self._mode = mode
        self._second = 0
        self._written = 0

    def write(self, scope: Scope, status: int, seconds: float) -> None:
        """Log a request that took `seconds` and was answered with `status` (0: it never was)."""
        if self._mode == "off":
            return
        problem = status >= 500 or status == 0 or seconds >= SLOW
        if self._mode != "all" and not (problem and self._has_room()):
            return
        level = logging.WARNING if problem else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "%s %s (%s) answered %d in %.3f s",
                scope["method"],
                scope["path"],
                template(scope),
                status,
                seconds,
            )

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            if self._written > PER_SECOND:
                log.warning("%d more problems in one second were not logged", self._written - PER_SECOND)
            self._second, self._written = second, 0
        self._written += 1
        return self._written <= PER_SECOND
