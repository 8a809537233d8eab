"""How much may be repeated of what an overloaded member has refused: a share of what is asked for.

Whoever repeats everything multiplies the load of a member that has just said that it's too much.
"""

from __future__ import annotations

import threading

SHARE = 0.1
"""Repetitions per operation."""
MOST = 10.0
"""Repetitions that may be saved up, for an overload that lasts a moment."""


class RetryBudget:
    """A token bucket that operations fill and their repetitions empty. Threads may share it."""

    def __init__(self, share: float = SHARE, most: float = MOST) -> None:
        self._share = share
        self._most = most
        self._saved = 0.0
        self._lock = threading.Lock()

    def earn(self) -> None:
        """An operation begins."""
        with self._lock:
            self._saved = min(self._most, self._saved + self._share)

    def take(self) -> bool:
        """Whether one may be repeated; then it is."""
        with self._lock:
            if self._saved < 1:
                return False
            self._saved -= 1
            return True
