"""`Sluice`: one worker's client, from opening to closing, and what it knows about itself."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import bson
from pymongo.errors import PyMongoError

from sluice.coalescing.coalescer import Limits
from sluice.coalescing.reader import Reader
from sluice.coalescing.writer import Writer
from sluice.drivers import driver
from sluice.drivers.connected import Connected, Document
from sluice.drivers.members import name_of
from sluice.errors import NotPrepared, PoolUnavailable, brief, is_refusal
from sluice.options import Options
from sluice.statistics import process
from sluice.statistics.figures import past
from sluice.statistics.members import MembersView
from sluice.statistics.operations import READS, Operations
from sluice.statistics.slots import Slot
from sluice.statistics.snapshot import (
    ANY_MEMBER,
    CoalescerStats,
    PoolConfig,
    PoolSnapshot,
    PoolStats,
    WorkerSnapshot,
)

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase

log = logging.getLogger(__name__)

Prepare = Callable[["AsyncDatabase[Document]"], Awaitable[str | None]]
"""Makes the database what it must be before anything is written, or raises. What it returns is wanting, but no reason
not to serve (a schema that this user may not set, say); it is tried again now and then."""

TICK = 0.25
LONGEST_PAUSE = 30.0
"""Seconds between two attempts to prepare the database, at most."""
SAY_AGAIN = 60.0
"""Seconds after which an unchanged reason not to be ready is logged again; twice as long each time, up to an hour."""
PUBLISH_EVERY = 1.0
OBSERVE_EVERY = 5.0


class Sluice:
    """One worker's way to MongoDB. Open it in the process and on the loop that use it, never before a fork.

    `prepare` runs once, when MongoDB is first reached (indexes, schema), and again until it succeeds; the worker is
    not ready before, and writes are refused. The slot is closed with the Sluice.
    """

    def __init__(self, options: Options, slot: Slot, *, prepare: Prepare | None = None) -> None:
        previous = slot.previous()
        self.options = options
        self.slot = slot
        self.app_name = f"{options.app_name}-{socket.gethostname()}-{slot.number}"[:128]
        self._prepare = prepare
        self._view = MembersView(options, slot)
        self.published = True
        """Whether the other workers know what this one knows."""
        self._prepared = asyncio.Event()
        self._prepare_pause = TICK
        self._wanting: str | None = None
        self._trouble = "MongoDB has not been reached yet"
        self._prepare_at = 0.0
        self._said: dict[object, tuple[float, float]] = {}
        self._refusal: Exception | None = None
        self._doubted = False
        self._connect = driver(options.driver)
        self._connected: Connected | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._observing: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._pools = {pool.member: past(pool.stats) for pool in previous.pools} if previous else {}
        self._operations = Operations(options.slow_operation, previous.operations if previous else [], self._doubt)
        self._coalescing: list[Reader | Writer] = []
        self._collections: dict[tuple[Any, ...], AsyncCollection[Document]] = {}
        self._readers: dict[tuple[str, bytes | None, Limits | None], Reader] = {}
        self._writers: dict[tuple[str, Limits | None], Writer] = {}
        self._limits = Limits(
            lanes=options.lanes, batch=options.batch, batch_bytes=options.batch_bytes, waiting=options.queue_limit
        )
        coalescers = previous.coalescers if previous else []
        self._coalescers = {(stats.kind, stats.collection): past(stats) for stats in coalescers}
        self._starts = previous.starts + 1 if previous else 1
        self._started_at = time.time()
        self._loop_lag = 0.0
        self._cpu_before = previous.cpu_seconds if previous else 0.0

    # What applications use

    async def open(self) -> None:
        """Start connecting. Returns at once, whether or not MongoDB is there."""
        self._reaching = asyncio.create_task(self._reach(), name="sluice-reach")
        self._heart = asyncio.create_task(self._beat(), name="sluice-heart")
        self.publish()

    async def wait_until_prepared(self, seconds: float) -> bool:
        """Wait until MongoDB was reached for the first time, at most for so long; whether it was."""
        try:
            await asyncio.wait_for(self._prepared.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close every connection and free the slot."""
        tasks = [task for task in (self._heart, self._reaching, self._observing) if task is not None]
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, Exception):
                log.error("a background task had failed: %r", error)
        for coalescing in self._coalescing:
            await coalescing.close()
        if self._connected is not None:
            await self._connected.close()
            self._connected = None
            log.info("connection pool closed")
        await self._view.close()
        self.publish()
        self.slot.close()

    @property
    def ready(self) -> bool:
        """Whether this worker can serve: prepared, a primary known, its pool not paused, nothing refused. No I/O."""
        return self._prepared.is_set() and self._has_primary() and self.refusal is None

    @property
    def refusal(self) -> Exception | None:
        """Why MongoDB takes this service in no more (a wrong password, missing rights); None while it does. No I/O."""
        connected = self._connected
        if self._refusal is not None or connected is None:
            return self._refusal
        members = connected.eligible() or connected.pools.keys()  # whoever refuses is unknown for a moment
        refusals = (connected.pools[member].tracker.refusal for member in members if member in connected.pools)
        return next((refusal for refusal in refusals if refusal is not None), None)

    @property
    def reason(self) -> str | None:
        """Why this worker isn't ready, or what is wanting although it is; None when all is well."""
        if self.ready:
            return self._wanting
        return self._trouble or "no primary is known, or its pool is paused"

    @property
    def database(self) -> AsyncDatabase[Document]:
        """Raises `PoolUnavailable` while there's no client (an unresolved `mongodb+srv` name, or closed)."""
        return self._client().database

    def collection(self, name: str, codec_options: Mapping[str, Any] | None = None) -> AsyncCollection[Document]:
        """A collection, decoded with these of `CodecOptions`' fields; the same one for the same arguments.

        Raises `PoolUnavailable`, as `database`.
        """
        key = (name, codec_options and tuple(codec_options.items()))
        collection = self._collections.get(key)
        if collection is None:
            collection = self.database[name]
            if codec_options:
                options = collection.codec_options.with_options(**codec_options)
                collection = collection.with_options(codec_options=options)
            self._collections[key] = collection
        return collection

    def reader(
        self, collection: str, *, projection: Mapping[str, Any] | None = None, limits: Limits | None = None
    ) -> Reader:
        """Coalesced point reads by `_id`; the same reader for the same arguments. Raises `PoolUnavailable`."""
        key = (collection, projection if projection is None else bson.encode(projection), limits)
        reader = self._readers.get(key)
        if reader is None:
            stats = self._coalescer_stats("read", collection)
            reader = Reader(self.database[collection], stats, projection=projection, limits=limits or self._limits)
            self._readers[key] = reader
            self._coalescing.append(reader)
        return reader

    def writer(self, collection: str, *, limits: Limits | None = None) -> Writer:
        """Coalesced inserts; the same writer for the same arguments. Raises `PoolUnavailable`."""
        writer = self._writers.get((collection, limits))
        if writer is None:
            stats = self._coalescer_stats("write", collection)
            writer = Writer(self.database[collection], stats, limits=limits or self._limits)
            self._writers[collection, limits] = writer
            self._coalescing.append(writer)
        return writer

    def operation(self, collection: str, name: str) -> AbstractContextManager[None]:
        """Time the block as one operation, named as the driver's method; see `sluice.statistics.operations`.

        Raises `NotPrepared` for whatever may write (all but `READS`) while the database isn't prepared.
        """
        if name not in READS and self._prepare is not None and not self._prepared.is_set():
            raise NotPrepared(self._trouble)
        return self._operations.measure(collection, name)

    def transaction(self) -> AbstractAsyncContextManager[AsyncClientSession]:
        """A transaction on a session of its own: committed at the end of the block, aborted if that raises.

        Raises `PoolUnavailable`, as `database`.
        """
        return self._client().transaction()

    async def ping(self) -> None:
        """Reach the primary. Raises what the driver raises."""
        await self.database.command("ping")

    # What it knows

    def roles(self) -> dict[str, str]:
        """Each known member's role as the driver sees it now (`RSPrimary`, `RSSecondary`, `Unknown`, …)."""
        if self._connected is None:
            return {}
        servers = self._connected.topology.server_descriptions().values()
        return {name_of(server.address): server.server_type_name for server in servers}

    def snapshot(self) -> WorkerSnapshot:
        """Everything about this worker, in one step: nothing else runs meanwhile."""
        now = time.time()
        options = self.options
        return WorkerSnapshot(
            worker=self.slot.number,
            pid=os.getpid(),
            app_name=self.app_name,
            driver=options.driver,
            started_at=self._started_at,
            taken_at=now,
            starts=self._starts,
            ready=self.ready,
            loop_lag_seconds=self._loop_lag,
            cpu_seconds=self._cpu_before + process.cpu_seconds(),
            memory_bytes=process.memory_bytes(),
            pool_config=PoolConfig(
                max_pool_size=options.max_pool_size,
                min_pool_size=options.min_pool_size,
                max_idle_time_ms=None if options.max_idle_time is None else int(options.max_idle_time * 1000),
                wait_queue_timeout_ms=int(options.wait_queue_timeout * 1000),
            ),
            pools=[self._pool(member) for member in self._pools],
            operations=self._operations.stats(),
            coalescers=list(self._coalescers.values()),
            members=self._view.statuses,
        )

    def _pool(self, member: str) -> PoolSnapshot:
        """What was counted for this member, and how its pool is now, if there is one."""
        stats, connected = self._pools[member], self._connected
        if connected is None:
            return PoolSnapshot(member=member, exists=False, stats=stats)
        usable = {
            address
            for address in connected.eligible()
            if address in connected.pools and not connected.pools[address].paused
        }
        gate = connected.gate
        if member == ANY_MEMBER and gate is not None:
            now = replace(
                stats,
                available_connections=gate.free if usable else 0,
                waiting=gate.waiting,
                oldest_waiter_seconds=gate.oldest_wait,
                wait_queue_limit=gate.queue_limit,
                permits=gate.permits,
                permits_held=gate.held,
                eligible=bool(usable),
            )
            return PoolSnapshot(member=member, exists=True, stats=now)
        pool = connected.pools.get(member)
        if pool is None or pool.closed:
            return PoolSnapshot(member=member, exists=False, stats=stats)
        return PoolSnapshot(member=member, exists=True, stats=pool.stats(eligible=member in usable))

    def _coalescer_stats(self, kind: str, collection: str) -> CoalescerStats:
        return self._coalescers.setdefault((kind, collection), CoalescerStats(kind=kind, collection=collection))

    def _client(self) -> Connected:
        if self._connected is None:
            raise PoolUnavailable("there is no MongoDB client: not connected yet, or closed")
        return self._connected

    def _has_primary(self) -> bool:
        connected = self._connected
        if connected is None or not connected.topology.has_writable_server():
            return False
        return any(member in connected.pools and not connected.pools[member].paused for member in connected.eligible())

    # What goes on behind

    def _stats_of(self, member: str) -> PoolStats:
        return self._pools.setdefault(member, PoolStats())

    async def _beat(self) -> None:
        """Measure the loop's lag, publish, and keep trying to reach MongoDB while it's away."""
        loop = asyncio.get_running_loop()
        published = observed = loop.time()
        worst = 0.0
        while True:
            before = loop.time()
            await asyncio.sleep(TICK)
            now = loop.time()
            worst = max(worst, now - before - TICK)
            if (self._doubted or self._is_wanted(now)) and (self._reaching is None or self._reaching.done()):
                self._reaching = asyncio.create_task(self._reach(), name="sluice-reach")
            if now - observed >= OBSERVE_EVERY and (self._observing is None or self._observing.done()):
                observed = now
                self._observing = asyncio.create_task(self._view.refresh(list(self.roles())), name="sluice-observe")
            if now - published >= PUBLISH_EVERY:
                published, self._loop_lag, worst = now, worst, 0.0
                self.publish()

    def publish(self) -> None:
        """Let every worker of the container know what this one knows now. Where that fails, it's logged once."""
        try:
            self.slot.hold()
            self.slot.publish(self.snapshot())
        except OSError as error:
            if self.published:
                log.error("statistics can't be published, only this worker knows them: %s", error)
            self.published = False
            return
        if not self.published:
            log.warning("statistics are published again")
        self.published = True

    def _doubt(self, refusal: BaseException) -> None:
        """An operation wasn't allowed. Whether that goes for the whole service, preparing again will tell."""
        self._doubted = True

    async def _reach(self) -> None:
        """Connect, reach the primary and prepare the database; says why when it can't, and is called again."""
        try:
            if self._connected is None:
                self._connected = await self._connect(self.options, self.app_name, self._stats_of)
            await self.ping()
        except (PyMongoError, OSError) as error:
            self._not_ready(error, brief(error))
            return
        if self._prepared.is_set():
            self._trouble = ""
        if self._doubted or self._wanting or not self._prepared.is_set():
            await self._make_prepared()

    def _is_wanted(self, now: float) -> bool:
        """Whether MongoDB should be asked whether all is well again."""
        if not self.ready:
            return True
        if self._wanting is None:
            self._said.clear()
        return self._wanting is not None and now >= self._prepare_at

    async def _make_prepared(self) -> None:
        """Prepare the database; where that fails, a little later each time it's tried again."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._prepare_at:
            return
        pause, self._prepare_pause = self._prepare_pause, min(2 * self._prepare_pause, LONGEST_PAUSE)
        try:
            wanting = await self._prepare(self.database) if self._prepare is not None else None
        except NotPrepared as error:
            self._refusal = None
            self._prepared.clear()  # also where it was: an index that somebody has dropped, say
            self._not_ready(str(error), str(error))
        except Exception as error:
            self._refusal = error if is_refusal(error) else None
            unexpected = None if isinstance(error, PyMongoError) else error
            self._not_ready(error, f"preparing the database failed: {brief(error)}", unexpected)
        else:
            if not self._doubted and wanting is None:  # who is refused again and again isn't asked for ever faster
                self._prepare_pause = TICK
            self._refusal, self._doubted = None, False
            self._trouble, self._wanting = "", wanting
            if wanting is not None and self._is_news(wanting):
                log.warning("the database isn't quite prepared: %s", wanting)
            if not self._prepared.is_set():
                self._prepared.set()
                log.info("connection pool ready: %s driver, %s", self.options.driver, ", ".join(self.roles()))
        self._prepare_at = loop.time() + pause

    def _not_ready(self, cause: object, reason: str, unexpected: Exception | None = None) -> None:
        """Keep the reason for whoever asks, and log it when it's another one, or after a long while."""
        self._trouble = reason
        # Of one kind of error the text differs each time: which member was asked, and what it answered.
        if self._is_news((type(cause), getattr(cause, "code", None)) if isinstance(cause, Exception) else cause):
            log.warning("connection pool not ready: %s", reason, exc_info=unexpected)

    def _is_news(self, what: object) -> bool:
        """Whether to log it: not said since all was well, or so long ago that it may be said again."""
        now = time.monotonic()
        after, pause = self._said.get(what, (0.0, SAY_AGAIN))
        if now < after:
            return False
        self._said[what] = (now + pause, min(2 * pause, 3600.0))
        return True
