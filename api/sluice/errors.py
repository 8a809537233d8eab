"""What Sluice itself raises.

    PyMongoError
    └── PoolError
        ├── QueueFull          refused at once: the wait queue is at its limit
        ├── QueueTimeout       waited as long as the queue, or the request, allows
        └── PoolUnavailable    no client yet, or it's closed
    TimeoutError
    └── DeadlineExceeded       the request's own time is up

None of them is a `ConnectionFailure`, so the driver neither retries them nor takes the member for broken.
"""

from __future__ import annotations

from pymongo.errors import PyMongoError


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


class DeadlineExceeded(TimeoutError):
    """The time that the caller gave to the whole request is used up."""
