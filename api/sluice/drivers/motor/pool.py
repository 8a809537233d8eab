"""The synchronous driver's pool under Motor: it only counts, since Motor's one turnstile stands before the threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING

from pymongo.errors import AutoReconnect, OperationFailure
from pymongo.monitoring import ConnectionClosedReason
from pymongo.synchronous.pool import Connection, Pool

from sluice.drivers.members import Address
from sluice.drivers.pools import TrackedConnection, TrackedPool, adopt, label_refusal
from sluice.drivers.tracker import Tracker
from sluice.statistics.snapshot import PoolStats

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.pool_options import PoolOptions
    from pymongo.synchronous.mongo_client import _ClientCheckout

already_waited: ContextVar[float] = ContextVar("sluice_already_waited", default=0.0)
"""Seconds that an operation waited before its thread started."""


class CountedConnection(TrackedConnection, Connection):
    """Counts its end."""

    def close_conn(self, reason: str | None) -> None:
        if reason is not None and not self.closed:
            self.tracker.closed(self.id, reason)
        super().close_conn(reason)


class SyncPool(TrackedPool, Pool):
    """A member's pool."""

    def __init__(
        self,
        address: Address,
        options: PoolOptions,
        is_sdam: bool = False,
        client_id: ObjectId | None = None,
        *,
        stats: PoolStats,
        narrow: Callable[[], None],
    ) -> None:
        """`narrow`: for the turnstile, from any thread; it stands before all members, so that all have less."""
        super().__init__(address, options, is_sdam, client_id)
        self.tracker = Tracker(stats)
        self._narrow = narrow
        self._entering = 0
        self._entering_lock = threading.Lock()

    def _enter(self, change: int) -> None:
        with self._entering_lock:
            self._entering += change

    def _get_conn(self, checkout_started_time: float, handler: _ClientCheckout | None = None) -> Connection:
        started = time.monotonic() - already_waited.get()
        self._enter(+1)
        try:
            connection = super()._get_conn(checkout_started_time, handler)
        except BaseException as error:
            label_refusal(error)
            raise
        finally:
            self._enter(-1)
        self.tracker.took(connection.id, started)
        return connection

    def connect(self, handler: _ClientCheckout | None = None) -> Connection:
        started = time.monotonic()
        try:
            connection = super().connect(handler)
        except BaseException as error:
            self.not_opened(error)
            raise
        self.tracker.opened(connection.id, time.monotonic() - started)
        return adopt(connection, CountedConnection, self.tracker)

    def checkin(self, conn: Connection) -> None:
        self.tracker.returned(conn.id)
        try:
            super().checkin(conn)
        finally:
            if conn.closed:
                self.tracker.closed(conn.id, ConnectionClosedReason.ERROR)

    def _perished(self, conn: Connection) -> bool:
        self.keep_if_minimum(conn)
        return super()._perished(conn)

    def remove_stale_sockets(self, reference_generation: int) -> None:
        with self.lock:
            self.keep_minimum()
        try:
            super().remove_stale_sockets(reference_generation)
        except (AutoReconnect, OperationFailure) as error:
            if self.not_filled(error, reference_generation):
                self.reset()  # nor would it let in who has a connection now

    async def interrupt(self) -> None:
        await asyncio.to_thread(self.reset, interrupt_connections=True)

    def overloaded(self) -> None:
        self.tracker.overloaded()
        self._narrow()

    def stats(self, eligible: bool) -> PoolStats:
        """What it has counted, and how it is now; the queue is that of the gate."""
        return replace(
            self.tracker.stats,
            active_connections=len(self.tracker.taken),
            idle_connections=len(self.conns),
            connecting=self._pending,
            waiting=self._entering,
            paused_pools=int(self.paused),
            eligible=eligible,
        )
