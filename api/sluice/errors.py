"""What Sluice itself raises.

    PyMongoError
    └── ConnectionFailure
        └── PoolError                  never reached MongoDB
            ├── PoolUnavailable        no client yet, or it's closed
            ├── QueueFull              refused at once: the wait queue is at its limit
            ├── QueueTimeout           waited as long as the queue, the request or the driver's own timeout allows
            ├── Abandoned              nobody waits for the outcome any more
            └── NotPrepared            a write before the database was prepared
    TimeoutError
    └── DeadlineExceeded               the request's own time is up

`QueueFull`, `QueueTimeout` and `Abandoned` are also the driver's `WaitQueueTimeoutError`, so that whoever knows the
driver catches them and finds their `timeout` true. That is the one `ConnectionFailure` after which the driver keeps its
opinion of the member; that it isn't retried is seen to by `sluice.drivers.pymongo.client`.
"""

from __future__ import annotations

import re

from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError, WaitQueueTimeoutError
from pymongo.pool_shared import _PoolClosedError

_TIMEOUTS = re.compile(r" \(configured timeouts:[^()]*\)")
"""Which the driver repeats for each member."""
PoolClosed: type[PyMongoError] = _PoolClosedError
"""The driver's own, raised by a pool that was closed under an operation; private, and an application sees it."""
NOTHING_WRITTEN = "NoWritesPerformed"
"""The label of an error that ended an operation before anything was written. When the driver meets it as it repeats a
write, it raises what its first attempt met."""
TRANSIENT = "TransientTransactionError"
"""The label of an error after which a transaction may be tried again as a whole."""
REFUSAL_CODES = {
    11: "UserNotFound",
    13: "Unauthorized",
    18: "AuthenticationFailed",
    31: "RoleNotFound",
    69: "AuthSchemaIncompatible",
    140: "InvalidSSLConfiguration",
    214: "AuthenticationRestrictionUnmet",
    334: "MechanismUnavailable",
    337: "AuthenticationAbandoned",
    391: "ReauthenticationRequired",
    392: "InvalidJWT",
    404: "LDAPRoleAcquisitionError",
    8000: "AtlasError",
    9390: "LDAPLibraryError (Percona)",
}
"""The server's codes for: it knows who asks, or doesn't, and won't have it. Repeating changes nothing."""


def is_refusal(error: BaseException) -> bool:
    """Whether the database refuses this service: a wrong password, a missing right."""
    return isinstance(error, OperationFailure) and error.code in REFUSAL_CODES


class PoolError(ConnectionFailure):
    """An operation that never reached MongoDB; repeating it is always safe."""

    def __init__(self, message: str = "") -> None:
        # A write that was sent once and met this when the driver repeated it fails with its first error instead.
        super().__init__(message, {NOTHING_WRITTEN})


class QueueFull(PoolError, WaitQueueTimeoutError):
    """Refused at once: as many operations wait for a connection as may."""


class QueueTimeout(PoolError, WaitQueueTimeoutError):
    """No connection came free in the time that the queue, the request or the driver's own timeout allows."""


class PoolUnavailable(PoolError):
    """There is no client to run the operation on: not connected yet, or closed."""


class Abandoned(PoolError, WaitQueueTimeoutError):
    """Whoever asked has gone, so the operation wasn't sent."""


class NotPrepared(PoolError):
    """The database isn't as it must be before anything is written; the text says what is missing.

    `prepare` raises it, and so does `Sluice.operation` for whatever may write, until `prepare` has succeeded.
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
