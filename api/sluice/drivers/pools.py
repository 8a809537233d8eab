"""The drivers' pools, made fair and exact.

`AsyncPool` (PyMongo's asynchronous API) passes a turnstile of its own before every checkout; `SyncPool` (Motor's
threads) only counts, since its turnstile stands before the thread pool. Both are what `_pool_class` is for, a
private hook of a pinned driver version: tests/sluice/test_driver_contract.py says when it changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from pymongo.asynchronous import pool as asynchronous
from pymongo.errors import AutoReconnect, OperationFailure, WaitQueueTimeoutError, _OperationCancelled
from pymongo.monitoring import ConnectionCheckOutFailedReason, ConnectionClosedReason
from pymongo.pool_shared import PoolState, _AgnosticBasePool
from pymongo.synchronous import pool as synchronous

from sluice import deadline, timings
from sluice.drivers import finishing
from sluice.errors import NOTHING_WRITTEN, PoolClosed, is_refusal
from sluice.pool.turnstile import Turnstile
from sluice.statistics.snapshot import PoolStats

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.asynchronous.mongo_client import _ClientCheckout as _AsyncHandler
    from pymongo.pool_options import PoolOptions
    from pymongo.synchronous.mongo_client import _ClientCheckout as _SyncHandler

log = logging.getLogger(__name__)

already_waited: ContextVar[float] = ContextVar("sluice_already_waited", default=0.0)
"""Seconds that an operation waited before its thread started (Motor)."""

Address = tuple[str, int | None]
_Connection = asynchronous.AsyncConnection | synchronous.Connection
MakeTurnstile = Callable[[str, PoolStats, Callable[[], bool]], Turnstile]


def name_of(address: Address) -> str:
    """`host:port`, as the replica set's configuration has it; `[host]:port` of IPv6, and the path of a socket."""
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Tracker:
    """Which connections of one pool are open and checked out, and what it has counted. Threads may share it."""

    def __init__(self, stats: PoolStats) -> None:
        self.stats = stats
        self.open: set[int] = set()
        self.taken: dict[int, float] = {}
        self.entering = 0
        self.refusal: OperationFailure | None = None
        """Why the member let nobody in when a connection was last opened; None once one was."""
        self._lock = threading.Lock()

    def enter(self, change: int) -> None:
        with self._lock:
            self.entering += change

    def opened(self, connection: int, seconds: float) -> None:
        with self._lock:
            self.open.add(connection)
            self.refusal = None
            self.stats.total_created += 1
            self.stats.create_time.observe(seconds)

    def failed(self, error: BaseException) -> None:
        with self._lock:
            self.stats.failed_to_open += 1
            if isinstance(error, OperationFailure) and is_refusal(error):
                self.refusal = error

    def closed(self, connection: int, reason: str) -> None:
        with self._lock:
            if connection in self.open:  # who closes it a second time changes nothing
                self.open.remove(connection)
                self.stats.closed[reason] = self.stats.closed.get(reason, 0) + 1

    def took(self, connection: int, started: float) -> None:
        now = time.monotonic()
        waited = now - started + already_waited.get()
        with self._lock:
            self.taken[connection] = now
            self.stats.wait_time.observe(waited)
        request = timings.current()
        if request is not None:
            request.queue_wait += waited

    def returned(self, connection: int) -> None:
        now = time.monotonic()
        with self._lock:
            taken = self.taken.pop(connection, None)
            if taken is not None:
                self.stats.use_time.observe(now - taken)


def _idle_too_long(connection: _Connection) -> bool:
    limit = connection.opts.max_idle_time_seconds
    return limit is not None and connection.idle_time_seconds() > limit


def _keep_minimum(pool: _AgnosticBasePool[Any]) -> None:
    """Let the connections that make up the minimum start their idle time anew; the driver closes what is beyond it.

    Dead ones go where the driver looks for those that are idle for too long.
    """
    makes_up = max(0, pool.opts.min_pool_size - pool.active_sockets)
    for connection in [connection for connection in islice(pool.conns, makes_up) if _idle_too_long(connection)]:
        if connection.conn_closed():
            pool.conns.remove(connection)
            pool.conns.append(connection)
        else:
            connection.update_last_checkin_time()


def _keep_if_minimum(pool: _AgnosticBasePool[Any], connection: _Connection) -> None:
    """The same for a connection that an operation has just taken."""
    if (
        _idle_too_long(connection)
        and len(pool.conns) + pool.active_sockets <= pool.opts.min_pool_size
        and not connection.conn_closed()
    ):
        connection.update_last_checkin_time()


def _filled_in_vain(address: Address) -> None:
    """The driver cleared a pool, since its member is silent, and so gave up a connection that it was opening for it.

    It would log its own doing as an error, with a traceback.
    """
    log.info("connection pool cleared while it was filled: %s", name_of(address))


def _only_waited(error: BaseException) -> None:
    """Label the driver's own refusal as Sluice's are: a write that it repeats then fails with its first error."""
    if isinstance(error, WaitQueueTimeoutError | PoolClosed):
        error._add_error_label(NOTHING_WRITTEN)


def _not_filled(address: Address, error: Exception) -> None:
    """The driver's filler could open no connection. The driver would print a traceback, every second."""
    log.info("connection pool not filled: %s: %s", name_of(address), type(error).__name__)


class AsyncConnection(asynchronous.AsyncConnection):
    """Counts its end. Every command, a batch's and a cursor's too, carries what is left of the request's time."""

    tracker: Tracker

    @staticmethod
    def adopt(connection: asynchronous.AsyncConnection, tracker: Tracker) -> AsyncConnection:
        """Make it one of these: the driver's pool names the class of its connections in its code."""
        connection.__class__ = AsyncConnection
        ours = cast("AsyncConnection", connection)
        ours.tracker = tracker
        return ours

    async def close_conn(self, reason: str | None) -> None:
        if reason is not None and not self.closed:
            # First: who is cancelled while it closes has closed it, though the driver then sends no event.
            self.tracker.closed(self.id, reason)
        await super().close_conn(reason)

    def apply_timeout(self, cmd: MutableMapping[str, Any] | None) -> float | None:
        timeout = super().apply_timeout(cmd)
        if cmd is not None:
            deadline.stamp(cmd)
        return timeout


class SyncConnection(synchronous.Connection):
    """As `AsyncConnection`."""

    tracker: Tracker

    @staticmethod
    def adopt(connection: synchronous.Connection, tracker: Tracker) -> SyncConnection:
        connection.__class__ = SyncConnection
        ours = cast("SyncConnection", connection)
        ours.tracker = tracker
        return ours

    def close_conn(self, reason: str | None) -> None:
        if reason is not None and not self.closed:
            self.tracker.closed(self.id, reason)
        super().close_conn(reason)

    def apply_timeout(self, cmd: MutableMapping[str, Any] | None) -> float | None:
        timeout = super().apply_timeout(cmd)
        if cmd is not None:
            deadline.stamp(cmd)
        return timeout


class AsyncPool(asynchronous.Pool):
    """A member's pool behind a turnstile; for a member's monitors, the driver's own pool."""

    def __init__(
        self,
        address: Address,
        options: PoolOptions,
        is_sdam: bool = False,
        client_id: ObjectId | None = None,
        *,
        stats: PoolStats,
        make_turnstile: MakeTurnstile,
    ) -> None:
        super().__init__(address, options, is_sdam, client_id)
        self.tracker = Tracker(stats)
        self.turnstile = make_turnstile(name_of(address), stats, self._has_room)
        self._filling = 0
        self._returning = 0

    def __repr__(self) -> str:
        return f"<AsyncPool {name_of(self.address)} idle={len(self.conns)} used={len(self.tracker.taken)}>"

    def _has_room(self) -> bool:
        """Whether the next operation would find a connection, or may open one, without waiting in the driver.

        Else `maxConnecting` would make it wait there, where others overtake it.
        """
        available = len(self.conns) + max(0, self._max_connecting - self._filling)
        return self.turnstile.held + self._filling < self.max_pool_size and self._entering < available

    @property
    def _entering(self) -> int:
        """Operations that the turnstile has let in and that have no connection yet."""
        return self.turnstile.held - len(self.tracker.taken) - self._returning

    async def _get_conn(
        self, checkout_started_time: float, handler: _AsyncHandler | None = None
    ) -> asynchronous.AsyncConnection:
        started = time.monotonic()
        if self.state != PoolState.READY:  # raises what the driver has for that
            try:
                return await super()._get_conn(checkout_started_time, handler)
            except PoolClosed as error:
                _only_waited(error)
                raise
        if not self.turnstile.enter_at_once():
            await self._wait_for_turn(checkout_started_time, handler)
        try:
            connection = await super()._get_conn(checkout_started_time, handler)
        except BaseException as error:
            self.turnstile.leave()
            _only_waited(error)
            raise
        self.tracker.took(connection.id, started)
        self.turnstile.admit()
        finishing.has_connection()
        return connection

    async def _wait_for_turn(self, checkout_started_time: float, handler: _AsyncHandler | None) -> None:
        """As the driver's own queue: server selection counts who waits, and each checkout that began has an end."""
        self.operation_count += 1
        try:
            await self.turnstile.enter(finishing.claim_of(handler.session if handler else None))
        except BaseException as error:
            self._telemetry.checkout_failed(*self._why_failed(error), checkout_started_time)
            raise
        finally:
            self.operation_count -= 1

    def _why_failed(self, error: BaseException) -> tuple[str, str]:
        """In the driver's words."""
        if self.closed:
            return "Connection pool was closed", ConnectionCheckOutFailedReason.POOL_CLOSED
        if isinstance(error, WaitQueueTimeoutError):
            return str(error), ConnectionCheckOutFailedReason.TIMEOUT
        return (
            "An error occurred while trying to establish a new connection",
            ConnectionCheckOutFailedReason.CONN_ERROR,
        )

    async def connect(self, handler: _AsyncHandler | None = None) -> asynchronous.AsyncConnection:
        filler = handler is None  # the driver's task that fills the pool to its minimum
        self._filling += filler
        started = time.monotonic()
        try:
            connection = await super().connect(handler)
        except BaseException as error:
            self.tracker.failed(error)
            raise
        finally:
            self._filling -= filler
        self.tracker.opened(connection.id, time.monotonic() - started)
        return AsyncConnection.adopt(connection, self.tracker)

    async def checkin(self, conn: asynchronous.AsyncConnection) -> None:
        self.tracker.returned(conn.id)
        self._returning += 1  # holds its slot until it is really back
        try:
            await super().checkin(conn)
        finally:
            if conn.closed:  # it broke while it was used
                self.tracker.closed(conn.id, ConnectionClosedReason.ERROR)
            self._returning -= 1
            self.turnstile.leave()

    async def _perished(self, conn: asynchronous.AsyncConnection) -> bool:
        _keep_if_minimum(self, conn)
        return await super()._perished(conn)

    async def remove_stale_sockets(self, reference_generation: int) -> None:
        _keep_minimum(self)
        try:
            await super().remove_stale_sockets(reference_generation)
        except _OperationCancelled:
            if not self.stale_generation(reference_generation, None):
                raise
            _filled_in_vain(self.address)
        except (AutoReconnect, OperationFailure) as error:
            if not is_refusal(error) and not error.has_error_label("SystemOverloadedError"):
                raise
            _not_filled(self.address, error)
            if is_refusal(error):  # nor would it let in who has a connection now
                await self.reset()
        finally:
            self.turnstile.admit()

    async def _reset(
        self,
        close: bool,
        pause: bool = True,
        service_id: ObjectId | None = None,
        interrupt_connections: bool = False,
    ) -> None:
        if close or (pause and self.opts.pause_enabled and not self.opts.load_balanced):
            # The driver's pool is paused before any of them runs, so nobody comes back into the queue.
            what = f"{name_of(self.address)}: connection pool {'closed' if close else 'cleared'}"
            self.turnstile.evict(lambda: AutoReconnect(what))
        await super()._reset(close, pause, service_id, interrupt_connections)

    @property
    def paused(self) -> bool:
        """The driver holds it back until it reaches the member again; or it is closed."""
        return self.state != PoolState.READY

    def stats(self, eligible: bool) -> PoolStats:
        """What it has counted, and how it is now."""
        turnstile = self.turnstile
        return replace(
            self.tracker.stats,
            available_connections=0 if self.paused else turnstile.free,
            active_connections=len(self.tracker.taken),
            idle_connections=len(self.conns),
            connecting=self._pending,
            waiting=turnstile.waiting + self._entering,
            oldest_waiter_seconds=turnstile.oldest_wait,
            wait_queue_limit=turnstile.queue_limit,
            paused_pools=int(self.paused),
            permits=turnstile.slots,
            permits_held=turnstile.held,
            eligible=eligible,
        )


class SyncPool(synchronous.Pool):
    """A member's pool under Motor, whose one turnstile stands before the threads."""

    def __init__(
        self,
        address: Address,
        options: PoolOptions,
        is_sdam: bool = False,
        client_id: ObjectId | None = None,
        *,
        stats: PoolStats,
    ) -> None:
        super().__init__(address, options, is_sdam, client_id)
        self.tracker = Tracker(stats)

    def _get_conn(self, checkout_started_time: float, handler: _SyncHandler | None = None) -> synchronous.Connection:
        started = time.monotonic()
        self.tracker.enter(+1)
        try:
            connection = super()._get_conn(checkout_started_time, handler)
        except BaseException as error:
            _only_waited(error)
            raise
        finally:
            self.tracker.enter(-1)
        self.tracker.took(connection.id, started)
        return connection

    def connect(self, handler: _SyncHandler | None = None) -> synchronous.Connection:
        started = time.monotonic()
        try:
            connection = super().connect(handler)
        except BaseException as error:
            self.tracker.failed(error)
            raise
        self.tracker.opened(connection.id, time.monotonic() - started)
        return SyncConnection.adopt(connection, self.tracker)

    def checkin(self, conn: synchronous.Connection) -> None:
        self.tracker.returned(conn.id)
        try:
            super().checkin(conn)
        finally:
            if conn.closed:
                self.tracker.closed(conn.id, ConnectionClosedReason.ERROR)

    def _perished(self, conn: synchronous.Connection) -> bool:
        _keep_if_minimum(self, conn)
        return super()._perished(conn)

    def remove_stale_sockets(self, reference_generation: int) -> None:
        with self.lock:
            _keep_minimum(self)
        try:
            super().remove_stale_sockets(reference_generation)
        except _OperationCancelled:
            if not self.stale_generation(reference_generation, None):
                raise
            _filled_in_vain(self.address)
        except (AutoReconnect, OperationFailure) as error:
            if not is_refusal(error) and not error.has_error_label("SystemOverloadedError"):
                raise
            _not_filled(self.address, error)
            if is_refusal(error):  # nor would it let in who has a connection now
                self.reset()

    @property
    def paused(self) -> bool:
        """The driver holds it back until it reaches the member again; or it is closed."""
        return self.state != PoolState.READY

    def stats(self, eligible: bool) -> PoolStats:
        """What it has counted, and how it is now; the queue is that of the gate."""
        return replace(
            self.tracker.stats,
            active_connections=len(self.tracker.taken),
            idle_connections=len(self.conns),
            connecting=self._pending,
            waiting=self.tracker.entering,
            paused_pools=int(self.paused),
            eligible=eligible,
        )


MemberPool = AsyncPool | SyncPool
