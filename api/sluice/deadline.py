"""A request's time budget: one deadline that queue wait, server selection and server time all draw on.

The server's limit (`maxTimeMS`) lies a margin below the client's, so that a slow query ends on the server and its
connection lives on; the client gives up, and closes the connection, only when the server doesn't answer in time.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from pymongo import _csot
from pymongo.errors import ExecutionTimeout

from sluice.errors import NOTHING_WRITTEN, Abandoned, DeadlineExceeded

MARGIN_SHARE = 0.1
MARGIN_MOST = 0.25
MAX_TIME_EXPIRED = 50  # the server's code for MaxTimeMSExpired

# What tidies up after an operation must run even when its time is over.
CLEAN_UP = frozenset({"abortTransaction", "commitTransaction", "killCursors", "endSessions"})
READING = frozenset({"count", "distinct", "find", "getMore", "hello", "listCollections", "listIndexes", "ping"})
"""Commands that surely write nothing."""
LET_FINISH = 0.25
"""Seconds for a read that nobody waits for any more: most end within, and their connections live on."""


@dataclass(slots=True)
class Asker:
    """For whom a request is done, as long as it's limited."""

    wrote: bool = False
    """Whether something was sent that may have written."""
    gone: bool = False
    waits: set[asyncio.Future[Any]] = field(default_factory=set)
    """Each lets an operation go on that hasn't been sent yet."""


@dataclass(slots=True)
class _Deadline:
    when: float  # time.monotonic(), which threads share; an event loop's clock need not
    margin: float
    asker: Asker
    outer: _Deadline | None = None
    lifted: bool = False


_current: ContextVar[_Deadline | None] = ContextVar("sluice_deadline", default=None)
_hurried: ContextVar[float | None] = ContextVar("sluice_hurried", default=None)


def _running() -> _Deadline | None:
    """The innermost that wasn't lifted."""
    deadline = _current.get()
    while deadline is not None and deadline.lifted:
        deadline = deadline.outer
    return deadline


class limit:  # noqa: N801 used like asyncio.timeout, and for every request: a generator would cost twice as much
    """Give an `async with` block `seconds`; within another limit the shorter one counts.

    Raises `DeadlineExceeded` when the time is over, after the block was cancelled.
    """

    __slots__ = ("_cancelling", "_deadline", "_expired", "_seconds", "_task", "_token", "when")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[Any] | None = None
        self._expired: Exception | None = None

    async def __aenter__(self) -> None:
        outer = _running()
        self.when = time.monotonic() + self._seconds
        if outer is not None and outer.when <= self.when:
            return
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a limit needs a task")
        margin = min(MARGIN_MOST, MARGIN_SHARE * self._seconds)
        self._deadline = _Deadline(self.when, margin, Asker() if outer is None else outer.asker, outer)
        self._token = _current.set(self._deadline)
        self._cancelling = task.cancelling()
        self._task = task
        _alarm().add(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is None:
            return
        self._task = None
        _current.reset(self._token)
        # As asyncio.timeout: a cancellation that came from elsewhere stays one.
        if self._expired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._expired from error

    def lift(self) -> None:
        """End the limit now: what the block still does takes the time that it needs, in its other tasks, too."""
        if self._task is not None:
            self._deadline.lifted = True

    @property
    def over(self) -> bool:
        """Whether the block has ended (or was never limited), or the limit was lifted."""
        return self._task is None or self._deadline.lifted

    @property
    def abandoned(self) -> bool:
        """Whether whoever asked has gone, and so the block, whatever it raises, was given up."""
        return self._task is not None and self._deadline.asker.gone

    def expire(self) -> None:
        """Cancel the block."""
        self._cancel(DeadlineExceeded(f"the request's {self._seconds * 1000:.0f} ms are used up"))

    def abandon(self, *, reads: bool) -> None:
        """Whoever asked has gone. What waits to be sent raises `Abandoned` instead, and so does what comes later;
        unless something was written before, which may be one half of what belongs together.

        `reads`: the block only reads, so what is under way is cancelled too, unless it ends in a moment.
        """
        if self.over or self._deadline.asker.wrote:
            return
        self._deadline.asker.gone = True
        if self._deadline.asker.wrote:  # by a thread, between the two looks
            self._deadline.asker.gone = False
            return
        for wait in self._deadline.asker.waits:
            if not wait.done():
                wait.set_exception(_abandoned())
        if reads:
            asyncio.get_running_loop().call_later(LET_FINISH, self._cancel, _abandoned())

    def _cancel(self, why: Exception) -> None:
        if not (self.over or self._expired or self._task is None):
            self._expired = why
            self._task.cancel()


class _Alarm:
    """One timer for all the limits of a loop: nearly all blocks end long before, and a timer for each would be the
    most expensive part of a limit."""

    def __init__(self) -> None:
        self._limits: list[tuple[float, int, limit]] = []  # a heap, with those that are over until they come up
        self._added = 0
        self._tidy_at = 1_000
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf

    def add(self, new: limit) -> None:
        self._added += 1
        heapq.heappush(self._limits, (new.when, self._added, new))
        if new.when < self._rings:
            self._set(new.when)
        if len(self._limits) > self._tidy_at:
            self._limits = [entry for entry in self._limits if not entry[2].over]
            heapq.heapify(self._limits)
            self._tidy_at = max(1_000, 2 * len(self._limits))

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = when
        self._timer = asyncio.get_running_loop().call_later(max(0.001, when - time.monotonic()), self._ring)

    def _ring(self) -> None:
        self._timer, self._rings = None, math.inf
        now = time.monotonic()
        while self._limits and (self._limits[0][2].over or self._limits[0][0] <= now):
            heapq.heappop(self._limits)[2].expire()
        if self._limits:
            self._set(self._limits[0][0])


_alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Alarm] = WeakKeyDictionary()


def _alarm() -> _Alarm:
    loop = asyncio.get_running_loop()
    alarm = _alarms.get(loop)
    if alarm is None:
        alarm = _alarms[loop] = _Alarm()
    return alarm


def remaining() -> float | None:
    """Seconds until the deadline (negative once it has passed), or None without one."""
    deadline = _running()
    return None if deadline is None else deadline.when - time.monotonic()


class waiting:  # noqa: N801 as `limit`
    """While a `with` block waits for this future, which lets an operation go on: it raises `Abandoned` if whoever asked
    goes, or has gone."""

    __slots__ = ("_asker", "_future")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future
        self._asker = asker()

    def __enter__(self) -> None:
        if self._asker is not None:
            if self._asker.gone:
                raise _abandoned()
            self._asker.waits.add(self._future)

    def __exit__(self, *_: object) -> None:
        if self._asker is not None:
            self._asker.waits.discard(self._future)


def asker() -> Asker | None:
    """For whom the running operation is; None without a limit."""
    deadline = _running()
    return None if deadline is None else deadline.asker


def _abandoned() -> Abandoned:
    return Abandoned("whoever asked has gone")


def driver_timeout() -> float | None:
    """Seconds that `pymongo.timeout()` or `timeoutMS` leaves to the running operation; None without either."""
    left = _csot.remaining()
    return None if left is None else max(0.0, left)


def allowance(seconds: float) -> float:
    """How long a wait of at most `seconds` may take so that its end can still be told before the deadline.

    Past the deadline only clean-up runs, which isn't hurried; the driver's own timeout holds for it, too.
    """
    theirs = driver_timeout()
    if theirs is not None:
        seconds = min(seconds, theirs)
    deadline = _running()
    if deadline is None:
        return seconds
    left = deadline.when - time.monotonic()
    return seconds if left <= 0 else max(0.0, min(seconds, left - deadline.margin))


@contextmanager
def hurry(seconds: float) -> Iterator[None]:
    """Within the block the server gives up a command after so long; who waits for it does so as ever."""
    token = _hurried.set(seconds)
    try:
        yield
    finally:
        _hurried.reset(token)


def stamp(command: MutableMapping[str, Any]) -> None:
    """Limit a command's time on the server to what is left.

    Raises `ExecutionTimeout` without sending it when nothing is left, or nobody waits for it.
    """
    hurried = _hurried.get()
    if hurried is not None:
        command["maxTimeMS"] = max(1, int(hurried * 1000))
    deadline = _running()
    if deadline is None or (name := next(iter(command))) in CLEAN_UP:
        return
    if name not in READING:  # before the look at `gone`, which another thread may set
        deadline.asker.wrote = True
    left = int((deadline.when - deadline.margin - time.monotonic()) * 1000)
    if left <= 0 or deadline.asker.gone:
        # One of the server's errors: the driver would close the connection after any other.
        message = "not sent: " + ("whoever asked has gone" if deadline.asker.gone else "the request's time is used up")
        answer = {"ok": 0, "errmsg": message, "code": MAX_TIME_EXPIRED, "errorLabels": [NOTHING_WRITTEN]}
        raise ExecutionTimeout(message, MAX_TIME_EXPIRED, answer)
    own = command.get("maxTimeMS")
    command["maxTimeMS"] = min(own, left) if own else left
