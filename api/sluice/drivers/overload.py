"""What becomes of an operation that a member has refused because it's overloaded.

Servers from 8.x say so by the label `SystemOverloadedError`, and by `RetryableError` that nothing was done. The drivers
repeat that twice, after a pause; here only as far as the budget and the request's time allow. What fails before it's
sent (a connection that isn't accepted has the same labels) is repeated as ever: that burdens nobody, and after an
election it's what is needed. See
https://github.com/mongodb/specifications/blob/master/source/client-backpressure/client-backpressure.md.
"""

from __future__ import annotations

from typing import Protocol

from pymongo.errors import OperationFailure

from sluice import deadline
from sluice.pool.retry_budget import RetryBudget

LABEL = "SystemOverloadedError"


class Policy(Protocol):
    """What the driver asks before it repeats an operation that was refused."""

    def backoff(self, attempt: int, base_backoff: float | None = None) -> float:
        """The pause before this attempt, in seconds."""

    def should_retry(self, attempt: int, delay: float) -> bool:
        """Whether to make this attempt, after such a pause."""


class Sparing:
    """The driver's own policy, within the budget and the request's time; for one operation."""

    def __init__(self, theirs: Policy, budget: RetryBudget) -> None:
        self.backoff = theirs.backoff
        self._theirs = theirs
        self._budget = budget

    def should_retry(self, attempt: int, delay: float) -> bool:
        in_time = deadline.allowance(delay) >= delay
        return in_time and self._theirs.should_retry(attempt, delay) and self._budget.take()


def refused(error: Exception) -> bool:
    """Whether a member has answered that it's overloaded."""
    return isinstance(error, OperationFailure) and error.has_error_label(LABEL)
