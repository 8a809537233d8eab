"""A request's time budget: one deadline that queue wait, server selection and server time all draw on.

The server's limit (`maxTimeMS`) lies a margin below the client's, so that a slow query ends on the server and its
connection lives on; the client gives up, and closes the connection, only when the server doesn't answer in time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pymongo.errors import ExecutionTimeout

from sluice.errors import DeadlineExceeded

MARGIN_SHARE = 0.1
MARGIN_MOST = 0.25
MAX_TIME_EXPIRED = 50  # the server's code for MaxTimeMSExpired

# What tidies up after an operation must run even when its time is over.
CLEAN_UP = frozenset({"abortTransaction", "commitTransaction", "killCursors", "endSessions"})


@dataclass(frozen=True, slots=True)
class _Deadline:
    when: float  # time.monotonic(), which threads share; an event loop's clock need not
    margin: float


_current: ContextVar[_Deadline | None] = ContextVar("sluice_deadline", default=None)


class limit:  # noqa: N801 used like asyncio.timeout, and for every request: a generator would cost twice as much
    """Give an `async with` block `seconds`; within another limit the shorter one counts.

    Raises `DeadlineExceeded` when the time is over, after the block was cancelled.
    """

    __slots__ = ("_scope", "_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scope: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        outer = _current.get()
        when = time.monotonic() + self._seconds
        if outer is not None and outer.when <= when:
            return
        self._token = _current.set(_Deadline(when, min(MARGIN_MOST, MARGIN_SHARE * self._seconds)))
        self._scope = asyncio.timeout(self._seconds)
        await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scope is None:
            return
        _current.reset(self._token)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            raise DeadlineExceeded(f"the request's {self._seconds * 1000:.0f} ms are used up") from timeout


def remaining() -> float | None:
    """Seconds until the deadline (negative once it has passed), or None without one."""
    deadline = _current.get()
    return None if deadline is None else deadline.when - time.monotonic()


def allowance(seconds: float) -> float:
    """How long a wait of at most `seconds` may take so that its end can still be told before the deadline.

    Past the deadline only clean-up runs, which isn't hurried.
    """
    deadline = _current.get()
    if deadline is None:
        return seconds
    left = deadline.when - time.monotonic()
    return seconds if left <= 0 else max(0.0, min(seconds, left - deadline.margin))


def stamp(command: MutableMapping[str, Any]) -> None:
    """Limit a command's time on the server to what is left.

    Raises `ExecutionTimeout` without sending it when nothing is left.
    """
    deadline = _current.get()
    if deadline is None or next(iter(command)) in CLEAN_UP:
        return
    left = int((deadline.when - deadline.margin - time.monotonic()) * 1000)
    if left <= 0:
        message = "not sent: the request's time is used up"
        raise ExecutionTimeout(message, MAX_TIME_EXPIRED, {"ok": 0, "errmsg": message, "code": MAX_TIME_EXPIRED})
    own = command.get("maxTimeMS")
    command["maxTimeMS"] = min(own, left) if own else left
