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
from sluice.drivers.transactions import ENDINGS
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
        return _in_time(delay) and self._theirs.should_retry(attempt, delay) and self._budget.take()


class Insisting:
    """For what ends a transaction: repeated as long as the request's time allows, since what stays open on a member
    burdens it more, and at least as often as the driver does."""

    def __init__(self, theirs: Policy) -> None:
        self.backoff = theirs.backoff
        self._theirs = theirs

    def should_retry(self, attempt: int, delay: float) -> bool:
        limited = deadline.remaining() is not None
        return (limited and _in_time(delay)) or self._theirs.should_retry(attempt, delay)


def policy(theirs: Policy, operation: str, budget: RetryBudget) -> Policy:
    """In place of the driver's, once an operation was refused."""
    if isinstance(theirs, Sparing | Insisting):
        return theirs
    return Insisting(theirs) if operation in ENDINGS else Sparing(theirs, budget)


def _in_time(delay: float) -> bool:
    left, theirs = deadline.remaining(), deadline.driver_timeout()
    return (left is None or left > delay) and (theirs is None or theirs > delay)


def refused(error: Exception) -> bool:
    """Whether a member has answered that it's overloaded."""
    return isinstance(error, OperationFailure) and error.has_error_label(LABEL)
