"""PyMongo's asynchronous pool, which an operation enters through a turnstile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from pymongo.asynchronous.pool import AsyncConnection, Pool
from pymongo.errors import AutoReconnect, OperationFailure, WaitQueueTimeoutError
from pymongo.monitoring import ConnectionCheckOutFailedReason, ConnectionClosedReason
from pymongo.pool_shared import PoolState

from sluice.drivers.members import Address, name_of
from sluice.drivers.pools import TrackedPool, adopt, label_refusal
from sluice.drivers.pymongo.connection import CountedConnection
from sluice.drivers.pymongo.endings import claim_of, has_connection
from sluice.drivers.tracker import Tracker
from sluice.errors import PoolClosed
from sluice.pool.turnstile import Turnstile
from sluice.statistics.snapshot import PoolStats

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.asynchronous.mongo_client import _ClientCheckout
    from pymongo.pool_options import PoolOptions

MakeTurnstile = Callable[[str, PoolStats, Callable[[], bool]], Turnstile]


class AsyncPool(TrackedPool, Pool):
    """A member's pool behind a turnstile of its own."""

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
        self._used: set[CountedConnection] = set()

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

    async def _get_conn(self, checkout_started_time: float, handler: _ClientCheckout | None = None) -> AsyncConnection:
        started = time.monotonic()
        if self.state != PoolState.READY:  # raises what the driver has for that
            try:
                connection = await super()._get_conn(checkout_started_time, handler)
            except PoolClosed as error:
                label_refusal(error)
                raise
            self.turnstile.held += 1  # it has become ready in between
            self._take(connection, started)
            return connection
        if not self.turnstile.enter_at_once():
            await self._wait_for_turn(checkout_started_time, handler)
        try:
            connection = self._idle() or await super()._get_conn(checkout_started_time, handler)
        except BaseException as error:
            self.turnstile.leave()
            label_refusal(error)
            raise
        self._take(connection, started)
        self.turnstile.admit()
        has_connection()
        return connection

    def _take(self, connection: AsyncConnection, started: float) -> None:
        self._used.add(cast("CountedConnection", connection))
        self.tracker.took(connection.id, started)

    def _idle(self) -> AsyncConnection | None:
        """What the driver would take without waiting, in one step of the event loop, which needs none of its locks;
        None where it would have to look closer."""
        if not self.conns or self.lock.locked() or self.requests >= self.max_pool_size or self.pid != os.getpid():
            return None
        connection = self.conns[0]
        idle = connection.idle_time_seconds()
        often, longest = self._check_interval_seconds, self.opts.max_idle_time_seconds
        if (often is not None and idle >= often) or (longest is not None and idle > longest):
            return None
        if self.stale_generation(connection.generation, connection.service_id):
            return None
        self.conns.popleft()
        self.operation_count += 1
        self.requests += 1
        self.active_sockets += 1
        connection.active = True
        self.active_contexts.add(connection.cancel_context)
        return cast("AsyncConnection", connection)

    async def _wait_for_turn(self, checkout_started_time: float, handler: _ClientCheckout | None) -> None:
        """As the driver's own queue: server selection counts who waits, and each checkout that began has an end."""
        self.operation_count += 1
        try:
            await self.turnstile.enter(claim_of(handler.session if handler else None))
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

    async def connect(self, handler: _ClientCheckout | None = None) -> AsyncConnection:
        filler = handler is None  # the driver's task that fills the pool to its minimum
        self._filling += filler
        started = time.monotonic()
        try:
            connection = await super().connect(handler)
        except BaseException as error:
            self.not_opened(error)
            raise
        finally:
            self._filling -= filler
        self.tracker.opened(connection.id, time.monotonic() - started)
        return adopt(connection, CountedConnection, self.tracker)

    async def checkin(self, conn: AsyncConnection) -> None:
        self.tracker.returned(conn.id)
        self._used.discard(cast("CountedConnection", conn))
        self._returning += 1  # holds its permit until it is really back
        try:
            await super().checkin(conn)
        finally:
            if conn.closed:  # it broke while it was used
                self.tracker.closed(conn.id, ConnectionClosedReason.ERROR)
            self._returning -= 1
            self.turnstile.leave()

    async def _perished(self, conn: AsyncConnection) -> bool:
        self.keep_if_minimum(conn)
        return await super()._perished(conn)

    async def remove_stale_sockets(self, reference_generation: int) -> None:
        self.keep_minimum()
        try:
            await super().remove_stale_sockets(reference_generation)
        except (AutoReconnect, OperationFailure) as error:
            if self.not_filled(error, reference_generation):
                await self.reset()  # nor would it let in who has a connection now
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
        if interrupt_connections:
            for connection in list(self._used):
                connection.interrupt()

    async def interrupt(self) -> None:
        await self.reset(interrupt_connections=True)

    def overloaded(self) -> None:
        self.tracker.overloaded()
        self.turnstile.narrow()

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
            permits=turnstile.permits,
            permits_given=turnstile.admitting,
            permits_held=turnstile.held,
            eligible=eligible,
        )
