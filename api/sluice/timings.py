"""Where one request's time went: collected by whoever handles the request, filled in by pools and operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def collect(label: Callable[[], str] = lambda: "") -> Iterator[Timings]:
    """Collect the timings of the operations in this block and in the tasks that it starts."""
    timings = Timings(label)
    token = _current.set(timings)
    try:
        yield timings
    finally:
        _current.reset(token)
