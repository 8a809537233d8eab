"""Query execution time: measured where the application names the operation, not by a command listener."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

from sluice import timings
from sluice.errors import is_refusal
from sluice.statistics.snapshot import OperationStats

log = logging.getLogger(__name__)

READS = frozenset({"find_one", "find", "count_documents", "estimated_document_count", "distinct", "aggregate", "watch"})
"""Operations that write nothing, by the names that the driver's methods have."""


class Operations:
    """What one worker counts per collection and operation; belongs to one event loop."""

    def __init__(
        self, slow: float, history: list[OperationStats], refused: Callable[[BaseException], None] = lambda _: None
    ) -> None:
        self._slow = slow
        self._refused = refused
        self._stats = {(stats.collection, stats.operation): stats for stats in history}

    def measure(self, collection: str, operation: str) -> _Measurement:
        """A context manager that times one operation, counts the error that ends it, and logs it if it was slow."""
        key = (collection, operation)
        stats = self._stats.get(key)
        if stats is None:
            stats = self._stats[key] = OperationStats(collection=collection, operation=operation)
        return _Measurement(stats, self._slow, self._refused)

    def stats(self) -> list[OperationStats]:
        return list(self._stats.values())


class _Measurement:
    __slots__ = ("_refused", "_slow", "_started", "_stats")

    def __init__(self, stats: OperationStats, slow: float, refused: Callable[[BaseException], None]) -> None:
        self._refused = refused
        self._stats = stats
        self._slow = slow

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._started
        stats = self._stats
        stats.duration.observe(seconds)
        if error is not None and kind is not None:
            if is_refusal(error):
                self._refused(error)
            stats.errors[kind.__name__] = stats.errors.get(kind.__name__, 0) + 1
        request = timings.current()
        if request is not None:
            request.database += seconds
        if seconds >= self._slow:
            caller = f" for {request.label()}" if request is not None else ""
            what = f"{stats.collection}.{stats.operation}{caller}"
            log.warning("Execution time of %s (seconds): %.3f", what, seconds, extra={"kind": what})
