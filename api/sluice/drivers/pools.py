"""What Sluice changes in the drivers' pools and connections without I/O, and so alike in both.

Both are what `_pool_class` is for, a private hook of a pinned driver version: tests/sluice/test_driver_contract.py says
when it changes.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from itertools import islice
from typing import Any, TypeVar, cast

from pymongo.errors import AutoReconnect, OperationFailure, WaitQueueTimeoutError, _OperationCancelled
from pymongo.pool_shared import PoolState, _AgnosticBaseConnection, _AgnosticBasePool

from sluice import deadline
from sluice.drivers.members import name_of
from sluice.drivers.tracker import Tracker
from sluice.errors import NOTHING_WRITTEN, PoolClosed, is_refusal

log = logging.getLogger(__name__)

Connection = TypeVar("Connection", bound="TrackedConnection")


class TrackedConnection(_AgnosticBaseConnection[Any]):
    """Every command, a batch's and a cursor's too, carries what is left of the request's time."""

    tracker: Tracker

    def apply_timeout(self, cmd: MutableMapping[str, Any] | None) -> float | None:
        timeout = super().apply_timeout(cmd)
        if cmd is not None:
            deadline.stamp(cmd)
        return timeout


def adopt(connection: object, kind: type[Connection], tracker: Tracker) -> Connection:
    """Make a subclass's of a connection: the driver's pool names the class of its connections in its code."""
    connection.__class__ = kind
    ours = cast("Connection", connection)
    ours.tracker = tracker
    return ours


class TrackedPool(_AgnosticBasePool[Any]):
    """A member's pool that counts, and keeps its minimum open."""

    tracker: Tracker

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} {name_of(self.address)} idle={len(self.conns)} used={len(self.tracker.taken)}>"

    @property
    def paused(self) -> bool:
        """The driver holds it back until it reaches the member again; or it is closed."""
        return self.state != PoolState.READY

    @property
    def is_waited_for(self) -> bool:
        return bool(self.active_sockets) and not self.paused

    def not_opened(self, error: BaseException) -> None:
        """Count a connection that could not be opened; one that was given up, by its caller or since this pool was
        closed or cleared, tells nothing of the member."""
        if isinstance(error, Exception) and not (self.closed or isinstance(error, _OperationCancelled)):
            self.tracker.failed(error)

    def keep_minimum(self) -> None:
        """Let the connections that make up the minimum restart their idle time; the driver closes what is beyond it.

        Dead ones go where the driver looks for those that are idle for too long.
        """
        makes_up = max(0, self.opts.min_pool_size - self.active_sockets)
        for connection in [connection for connection in islice(self.conns, makes_up) if _idle_too_long(connection)]:
            if connection.conn_closed():
                self.conns.remove(connection)
                self.conns.append(connection)
            else:
                connection.update_last_checkin_time()

    def keep_if_minimum(self, connection: Any) -> None:
        """The same for a connection that an operation has just taken."""
        if (
            _idle_too_long(connection)
            and len(self.conns) + self.active_sockets <= self.opts.min_pool_size
            and not connection.conn_closed()
        ):
            connection.update_last_checkin_time()

    def not_filled(self, error: AutoReconnect | OperationFailure, generation: int) -> bool:
        """The driver's filler opened no connection; whether the member refuses this service.

        The driver would print a traceback, every second. Raises `error` if it means anything else.
        """
        refused = is_refusal(error)
        if isinstance(error, _OperationCancelled) and self.stale_generation(generation, None):
            # Its member is silent, so the driver has cleared the pool and given up what it was opening for it.
            log.info("connection pool cleared while it was filled: %s", name_of(self.address))
        elif refused or error.has_error_label("SystemOverloadedError"):
            log.info("connection pool not filled: %s: %s", name_of(self.address), type(error).__name__)
        else:
            raise error
        return refused


def _idle_too_long(connection: _AgnosticBaseConnection[Any]) -> bool:
    limit = connection.opts.max_idle_time_seconds
    return limit is not None and connection.idle_time_seconds() > limit


def label_refusal(error: BaseException) -> None:
    """Label the driver's own refusal as Sluice's are: a write that it repeats then fails with its first error."""
    if isinstance(error, WaitQueueTimeoutError | PoolClosed):
        error._add_error_label(NOTHING_WRITTEN)
