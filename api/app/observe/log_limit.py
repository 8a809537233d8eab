"""A limit on problem lines: the first ones of each kind say what is wrong, the rest are counted.

Under overload every request may log one. Writing them would cost more than serving, fill disks, and hide what else
goes wrong.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 10.0
MOST = 20
"""Lines of one kind that are written in `WINDOW` seconds, by each process."""
MOST_KINDS = 500
"""That are told apart in one window; what comes later counts as one kind."""

MOST_QUOTED = 100
LEFT_OUT = "%d more of these lines in %d s were left out: %s"

_Kind = tuple[str, int, str]


@dataclass(slots=True)
class _Seen:
    """A kind: where it comes from, and what it says. Not its first record: a traceback holds on to all that it saw."""

    name: str
    level: int
    path: str
    line: int
    function: str | None
    what: str
    lines: int = 0

    @classmethod
    def of(cls, record: logging.LogRecord) -> _Seen:
        try:
            what = _more(record) or record.getMessage()[:MOST_QUOTED]
        except (TypeError, ValueError):  # its arguments don't fit; whoever logs must not fail
            what = str(record.msg)[:MOST_QUOTED]
        return cls(record.name, record.levelno, record.pathname, record.lineno, record.funcName, what)


class LogLimit(logging.Filter):
    """Lets `MOST` records of WARNING or above pass in each window, of each kind: the same place in the code and, where
    a record has one, the same `kind` or exception. When the window ends, `tell` gets a record that counts the others.

    A record with a true `unlimited` passes always. Threads may share it; a forked process starts afresh.
    """

    def __init__(self, tell: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._tell = tell
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._window: dict[_Kind, _Seen] = {}
        self._ends = 0.0
        self._timer: threading.Timer | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or getattr(record, "unlimited", False):
            return True
        now = time.monotonic()
        with self._lock:
            ended = self._end_window() if now >= self._ends else []
            if not self._window:
                self._ends = now + WINDOW
            kind = (record.name, record.lineno, _more(record))
            if kind not in self._window and len(self._window) >= MOST_KINDS:
                kind = ("", 0, "")
            seen = self._window.get(kind)
            if seen is None:
                seen = self._window[kind] = _Seen.of(record)
            seen.lines += 1
            if seen.lines > MOST and self._timer is None:  # a burst is counted although nothing may follow it
                self._timer = threading.Timer(self._ends - now, self.flush)
                self._timer.daemon = True
                self._timer.start()
        self._count(ended)
        return seen.lines <= MOST

    def flush(self) -> None:
        """End the window now and tell what was left out."""
        with self._lock:
            ended = self._end_window()
        self._count(ended)

    def _end_window(self) -> list[_Seen]:
        """Its kinds that had too many lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        over = [seen for seen in self._window.values() if seen.lines > MOST]
        self._window = {}
        return over

    def _count(self, over: list[_Seen]) -> None:
        for seen in over:
            left_out = logging.LogRecord(
                seen.name, seen.level, seen.path, seen.line,
                LEFT_OUT, (seen.lines - MOST, WINDOW, seen.what), None, seen.function,
            )  # fmt: skip
            self._tell(left_out)


def _more(record: logging.LogRecord) -> str:
    """What sets records of the same place apart."""
    kind = getattr(record, "kind", "")
    if not kind and record.exc_info and record.exc_info[0] is not None:
        kind = record.exc_info[0].__name__
    return str(kind)
