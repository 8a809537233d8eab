"""What Sluice itself raises.

    PyMongoError
    └── PoolError
        ├── QueueFull          refused at once: the wait queue is at its limit
        ├── QueueTimeout       waited as long as the queue, or the request, allows
        ├── PoolUnavailable    no client yet, or it's closed
        └── NotPrepared        a write before the database was prepared
    TimeoutError
    └── DeadlineExceeded       the request's own time is up

None of them is a `ConnectionFailure`, so the driver neither retries them nor takes the member for broken.
"""

from __future__ import annotations

import re

from pymongo.errors import OperationFailure, PyMongoError

_TIMEOUTS = re.compile(r" \(configured timeouts:[^()]*\)")
"""Which the driver repeats for each member."""


class PoolError(PyMongoError):
    """An operation that never reached MongoDB; repeating it is always safe."""

    def __init__(self, message: str = "") -> None:
        # A write that was sent once and met this when the driver repeated it fails with its first error instead.
        super().__init__(message, {"NoWritesPerformed"})


class QueueFull(PoolError):
    """Refused at once: as many operations wait for a connection as may."""


class QueueTimeout(PoolError):
    """No connection came free in the time that the queue or the request allows."""


class PoolUnavailable(PoolError):
    """There is no client to run the operation on: not connected yet, or closed."""


class NotPrepared(PoolError):
    """The database isn't as it must be before anything is written; the text says what is missing.

    `prepare` raises it, and so does every write until `prepare` has succeeded.
    """


class DeadlineExceeded(TimeoutError):
    """The time that the caller gave to the whole request is used up."""


def brief(error: Exception) -> str:
    """An exception in one line: the server's words without its whole answer, the driver's without its topology."""
    details = (error.details if isinstance(error, OperationFailure) else None) or {}
    text = str(details.get("errmsg") or error)
    for rest in (", full error:", ", Timeout:", " to execute command {"):
        text = text.partition(rest)[0]
    text = _TIMEOUTS.sub("", text)
    return f"{type(error).__name__}: {' '.join(text.split())[:1000]}"
