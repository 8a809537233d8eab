"""Exact figures of one pool, taken where connections are opened, taken, returned and closed."""

from __future__ import annotations

import threading
import time

from pymongo.errors import OperationFailure

from sluice import timings
from sluice.errors import is_refusal
from sluice.statistics.snapshot import PoolStats


class Tracker:
    """Which connections of one pool are open and checked out, and what it has counted. Threads may share it."""

    def __init__(self, stats: PoolStats) -> None:
        self.stats = stats
        self.open: set[int] = set()
        self.taken: dict[int, float] = {}
        self.refusal: OperationFailure | None = None
        """Why the member let nobody in when a connection was last opened; None once one was."""
        self._lock = threading.Lock()

    def opened(self, connection: int, seconds: float) -> None:
        with self._lock:
            self.open.add(connection)
            self.refusal = None
            self.stats.total_created += 1
            self.stats.create_time.observe(seconds)

    def failed(self, error: Exception) -> None:
        with self._lock:
            self.stats.failed_to_open += 1
            if isinstance(error, OperationFailure) and is_refusal(error):
                self.refusal = error

    def overloaded(self) -> None:
        """The member has refused an operation for that."""
        with self._lock:
            self.stats.overloaded += 1

    def closed(self, connection: int, reason: str) -> None:
        with self._lock:
            if connection in self.open:  # who closes it a second time changes nothing
                self.open.remove(connection)
                self.stats.closed[reason] = self.stats.closed.get(reason, 0) + 1

    def took(self, connection: int, started: float) -> None:
        """An operation that has waited since `started` (`time.monotonic()`) has its connection."""
        now = time.monotonic()
        waited = now - started
        with self._lock:
            self.taken[connection] = now
            self.stats.wait_time.observe(waited)
        request = timings.current()
        if request is not None:
            request.queue_wait += waited

    def returned(self, connection: int) -> None:
        now = time.monotonic()
        with self._lock:
            taken = self.taken.pop(connection, None)
            if taken is not None:
                self.stats.use_time.observe(now - taken)
