"""Where one request's time went: collected by whoever handles the request, filled in by pools and operations."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


class Timings:
    """Seconds that one request spent in wait queues, and in operations (their queue wait included).

    `label` names the request in the log of slow operations; it is called only when one is logged.
    """

    __slots__ = ("database", "label", "queue_wait")

    def __init__(self, label: Callable[[], str]) -> None:
        self.queue_wait = 0.0
        self.database = 0.0
        self.label = label


_current: ContextVar[Timings | None] = ContextVar("sluice_timings", default=None)

current: Callable[[], Timings | None] = _current.get


class collect:  # noqa: N801 used like a function, and for every request: a generator would cost twice as much
    """Collect the timings of the operations in this `with` block and in the tasks that it starts."""

    __slots__ = ("_timings", "_token")

    def __init__(self, label: Callable[[], str] = lambda: "") -> None:
        self._timings = Timings(label)

    def __enter__(self) -> Timings:
        self._token = _current.set(self._timings)
        return self._timings

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
