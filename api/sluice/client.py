"""`Sluice`: one worker's client, from opening to closing."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import bson

from sluice.changes import Changes, ChangeStream
from sluice.coalescing.coalescer import Limits
from sluice.coalescing.reader import Reader
from sluice.coalescing.writer import Writer
from sluice.drivers import driver
from sluice.drivers.arguments import is_srv
from sluice.drivers.connected import Client, Connected, Database, Document, Session, usable
from sluice.drivers.finding import Query, find
from sluice.drivers.members import ReadPreference, Role, name_of
from sluice.errors import PoolUnavailable
from sluice.failover import Failover
from sluice.options import Options
from sluice.readiness import Prepare, Readiness
from sluice.statistics.members import MembersView
from sluice.statistics.operations import READS
from sluice.statistics.slots import Slot
from sluice.statistics.snapshot import WorkerSnapshot
from sluice.statistics.worker import WorkerStatistics

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.collation import Collation
    from pymongo.read_concern import ReadConcern

log = logging.getLogger(__name__)
Result = TypeVar("Result")

TICK = 0.25
PUBLISH_EVERY = 1.0
OBSERVE_EVERY = 5.0
"""Seconds."""


class Sluice:
    """One worker's way to MongoDB. Open it in the process and on the loop that use it, never before a fork.

    `slot` is the worker's place among those that share statistics; without one, it is among all of this user's on this
    machine with the same `app_name` and database. It is closed with the Sluice.

    `prepare` runs once, when MongoDB is first reached (indexes, schema), and again until it succeeds; the worker is
    not ready before, and `operation` refuses whatever may write.

    `async with` opens it, waits until MongoDB is reached, at most for `server_selection_timeout`, and closes it at the
    end. Whether or not MongoDB was there, it serves, or says why not. It raises what the driver raises for options that
    it doesn't take.

    Raises `ModuleNotFoundError`, which names the extra, where the driver isn't installed.
    """

    def __init__(self, options: Options, slot: Slot | None = None, *, prepare: Prepare | None = None) -> None:
        self._connect = driver(options.driver)
        self.options = options
        self.slot = slot = slot or Slot.shared(f"{options.app_name}-{options.database}")
        self.app_name = f"{options.app_name}-{socket.gethostname()}-{slot.number}"[:128]
        self._connected: Connected | None = None
        self._readiness = Readiness(self._reach, prepare, self._described)
        self._statistics = WorkerStatistics(options, slot, self.app_name, self._readiness.doubt)
        self._view = MembersView(options, slot)
        self._failover = Failover()
        self._limits = Limits(
            lanes=options.lanes, batch=options.batch, batch_bytes=options.batch_bytes, waiting=options.queue_limit
        )
        self._collections: dict[str, list[tuple[Mapping[str, Any], AsyncCollection[Document]]]] = {}
        self._readers: dict[tuple[str, bytes | None, bytes | None, Limits | None], Reader] = {}
        self._writers: dict[tuple[str, Limits | None], Writer] = {}
        self._opened = self._closed = False
        self._attempt: asyncio.Task[None] | None = None
        self._observation: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None

    # Opening and closing

    async def __aenter__(self) -> Self:
        if self._opened or self._closed:
            await self.open()  # says so
        try:
            if not is_srv(self.options):
                with suppress(OSError):  # a file with certificates, say: opening meets it again, as long as it lasts
                    await self._make_client()
                    self._client().database  # noqa: B018 raises for a name that no database may have
            await self.open()
            await self.wait_until_prepared(self.options.server_selection_timeout)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start connecting. Returns at once, whether or not MongoDB is there.

        Raises `RuntimeError` where it was opened before, or closed. Options that the driver doesn't take are a reason
        like any other why it isn't ready.
        """
        if self._opened or self._closed:
            raise RuntimeError(f"this Sluice was {'opened' if self._opened else 'closed'} before: make another one")
        self._opened = True
        self._attempt = asyncio.create_task(self._readiness.attempt(), name="sluice-reach")
        self._heart = asyncio.create_task(self._beat(), name="sluice-heart")
        self.publish()

    async def wait_until_prepared(self, seconds: float) -> bool:
        """Wait until MongoDB was reached for the first time, at most for so long; whether it was."""
        try:
            await asyncio.wait_for(self._readiness.wait_until_prepared(), seconds)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close every connection and free the slot. Once is enough."""
        if self._closed:
            return
        self._closed = True
        tasks = [task for task in (self._heart, self._attempt, self._observation) if task is not None]
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, Exception):
                log.error("a background task had failed: %r", error)
        for reader in self._readers.values():
            await reader.close()
        for writer in self._writers.values():
            await writer.close()
        if self._connected is not None:
            await self._connected.close()
            self._connected = None
            self._collections.clear()
            log.info("connection pool closed")
        await self._view.close()
        self.publish()
        self.slot.close()

    # What applications use

    @property
    def client(self) -> Client:
        """The driver's client (Motor's where that is chosen): all that it does goes through the turnstile.

        For sessions, other databases, and libraries that want a client. Raises `PoolUnavailable` while there is none:
        before MongoDB's name is resolved (`mongodb+srv`), and once this is closed.
        """
        return self._client().client

    @property
    def database(self) -> Database:
        """The database that the options name. Raises `PoolUnavailable`, as `client`."""
        return self._client().database

    def collection(self, name: str, codec_options: Mapping[str, Any] | None = None) -> AsyncCollection[Document]:
        """A collection, decoded with these of `CodecOptions`' fields; the same one for the same arguments.

        Raises `PoolUnavailable`, as `client`.
        """
        wanted = codec_options or {}
        made = self._collections.setdefault(name, [])
        for options, collection in made:
            if options == wanted:  # compared, since a registry of types can't be hashed
                return collection
        collection = self.database[name]
        if wanted:
            codec = collection.codec_options.with_options(**wanted)
            collection = collection.with_options(codec_options=codec)
        made.append((dict(wanted), collection))
        return collection

    def reader(
        self,
        collection: str,
        *,
        projection: Mapping[str, Any] | None = None,
        read_preference: ReadPreference | None = None,
        limits: Limits | None = None,
    ) -> Reader:
        """Coalesced point reads by `_id`; the same reader for the same arguments, so that its callers share batches.

        `read_preference`: the client's own unless given, the primary by default. With `PrimaryPreferred()` reads go on
        while there is no primary, and may then miss what was written last. Raises `PoolUnavailable`, as `client`.
        """
        mode = None if read_preference is None else bson.encode(read_preference.document)
        key = (collection, projection if projection is None else bson.encode(projection), mode, limits)
        reader = self._readers.get(key)
        if reader is None:
            stats = self._statistics.of_coalescer("read", collection)
            of = self.database[collection].with_options(read_preference=read_preference)
            reader = Reader(of, stats, projection=projection, limits=limits or self._limits)
            self._readers[key] = reader
        return reader

    def writer(self, collection: str, *, limits: Limits | None = None) -> Writer:
        """Coalesced inserts; the same writer for the same arguments. Raises `PoolUnavailable`, as `client`."""
        writer = self._writers.get((collection, limits))
        if writer is None:
            stats = self._statistics.of_coalescer("write", collection)
            writer = Writer(self.database[collection], stats, limits=limits or self._limits)
            self._writers[collection, limits] = writer
        return writer

    async def find(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002 as the driver's
        projection: Mapping[str, Any] | None = None,
        *,
        sort: Sequence[tuple[str, int | str | Mapping[str, Any]]] | None = None,
        skip: int = 0,
        limit: int = 0,
        collation: Collation | None = None,
        comment: object = None,
        read_preference: ReadPreference | None = None,
        read_concern: ReadConcern | None = None,
        codec_options: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """The documents that fit, as the driver's `find(…).to_list()` has them, for less: on PyMongo a query whose
        answer fits into one reply (16 MiB) is asked without the driver's machinery around it. For pages, not for all.

        `limit`: 0 for all; `codec_options` as in `collection`. Raises what the driver raises, and `PoolUnavailable`, as
        `client`; `ValueError` for a limit or skip below 0.
        """
        for name, number in (("limit", limit), ("skip", skip)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"{name}={number!r}: allowed is a whole number, 0 or more")
        of = self.collection(collection, codec_options)
        if read_preference is not None or read_concern is not None:
            of = of.with_options(read_preference=read_preference, read_concern=read_concern)
        return await find(of, Query(filter, projection, sort, skip, limit, collation, comment))

    def operation(self, collection: str, name: str) -> AbstractContextManager[None]:
        """Time the block as one operation, named as the driver's method; see `sluice.statistics.operations`.

        Raises `NotPrepared` for whatever may write (all but `READS`) while the database isn't prepared.
        """
        if name not in READS:
            self._readiness.check_prepared()
        return self._statistics.operations.measure(collection, name)

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """A transaction on a session of its own: committed at the end of the block, aborted if that raises.

        It is tried once: what meets another transaction, or an election, ends it; see `with_transaction`. Raises
        `PoolUnavailable`, as `client`.
        """
        return self._client().transaction()

    async def with_transaction(self, work: Callable[[Session], Coroutine[Any, Any, Result]]) -> Result:
        """Do `work(session)` in a transaction, commit it, and return what it returned.

        As MongoDB asks, all of it is done again where it met another transaction or an election, and a commit that
        wasn't confirmed is repeated, until that succeeds or the request's time is up (at most 120 seconds). So `work`
        changes nothing but the database, hands the session to each of its operations, and lets the driver's errors
        pass. Raises what it raises; `PoolUnavailable`, as `client`.
        """
        async with self._client().session() as session:
            return await session.with_transaction(work)

    def watch(
        self,
        collection: str,
        pipeline: Sequence[Mapping[str, Any]] = (),
        *,
        resume_after: Mapping[str, Any] | None = None,
        full_document: str | None = None,
        pause: float = 0.5,
    ) -> Changes:
        """The collection's changes from now on, or those after this `resume_token`: a change stream.

        `async with` opens it and raises what the driver raises, or `PoolUnavailable`, as `client`. MongoDB is asked
        every `pause` seconds, so that it has a connection for moments only. `pipeline` and `full_document` are those of
        the driver's `watch`. Raises `ValueError` for a pause that is none.
        """
        if isinstance(pause, bool) or not isinstance(pause, int | float) or not 0 <= pause < math.inf:
            raise ValueError(f"pause={pause!r}: allowed is 0 or more, in seconds")

        async def open_stream(token: Mapping[str, Any] | None) -> ChangeStream:
            after = resume_after if token is None else token
            options = {"pipeline": list(pipeline), "resume_after": after, "full_document": full_document}
            with self.operation(collection, "watch"):
                return await self._client().watch(self.collection(collection), **options, max_await_time_ms=1)

        return Changes(open_stream, pause)

    async def ping(self) -> None:
        """Reach the primary. Raises what the driver raises."""
        await self.database.command("ping")

    # What it knows; no I/O

    @property
    def ready(self) -> bool:
        """Whether this worker can serve: prepared, a primary known, its pool not paused, nothing refused."""
        return self._readiness.prepared and self._has_primary() and self.refusal is None

    @property
    def refusal(self) -> Exception | None:
        """Why MongoDB no longer lets this service in (a wrong password, missing rights); None while it does."""
        connected = self._connected
        if self._readiness.refusal is not None or connected is None:
            return self._readiness.refusal
        pools = usable(connected) or connected.pools  # a member that refuses is unknown for a moment
        return next((pool.tracker.refusal for pool in pools.values() if pool.tracker.refusal is not None), None)

    @property
    def reason(self) -> str | None:
        """Why this worker isn't ready, or what is incomplete although it is; None when all is well."""
        return self._readiness.reason(self.ready)

    @property
    def published(self) -> bool:
        """Whether the other workers know what this one knows."""
        return self._statistics.published

    def roles(self) -> dict[str, Role]:
        """Each known member's role as the driver sees it now (`RSPrimary`, `RSSecondary`, `Unknown`, …)."""
        if self._connected is None:
            return {}
        servers = self._connected.topology.server_descriptions().values()
        return {name_of(server.address): cast("Role", server.server_type_name) for server in servers}

    def snapshot(self) -> WorkerSnapshot:
        """Everything about this worker, in one step: nothing else runs meanwhile."""
        return self._statistics.snapshot(self._connected, self.ready)

    def publish(self) -> None:
        """Let every worker of the container know what this one knows now. Where that fails, it's logged once."""
        self._statistics.publish(self.snapshot())

    # Behind it

    def _client(self) -> Connected:
        if self._connected is None:
            raise PoolUnavailable(f"there is no MongoDB client: not connected yet, or closed ({self._why_none()})")
        return self._connected

    def _why_none(self) -> str:
        if not self._opened:
            return "open this Sluice first, by `async with` or `open()`"
        return "this Sluice is closed" if self._closed else self._readiness.reason(False) or "it has just been opened"

    def _has_primary(self) -> bool:
        connected = self._connected
        return connected is not None and connected.topology.has_writable_server() and bool(usable(connected))

    async def _make_client(self) -> None:
        if self._connected is None:
            self._connected = await self._connect(self.options, self.app_name, self._statistics.of_pool)

    async def _reach(self) -> Database:
        """Connect, and reach the primary. Raises what the driver raises."""
        await self._make_client()
        await self.ping()
        return self.database

    def _described(self) -> str:
        return f"{self.options.driver} driver, {', '.join(self.roles())}"

    async def _beat(self) -> None:
        """Measure the loop's lag, publish, and see to MongoDB: reach it while it's away, and follow its elections."""
        loop = asyncio.get_running_loop()
        published = observed = loop.time()
        worst = 0.0
        while True:
            before = loop.time()
            await asyncio.sleep(TICK)
            now = loop.time()
            worst = max(worst, now - before - TICK)
            try:
                await self._see_to_mongodb()
                if now - observed >= OBSERVE_EVERY and _is_over(self._observation):
                    observed = now
                    self._observation = asyncio.create_task(self._observe(), name="sluice-observe")
                if now - published >= PUBLISH_EVERY:
                    published, self._statistics.loop_lag, worst = now, worst, 0.0
                    self.publish()
            except Exception:  # the heart beats on
                log.exception("something failed that is done all the time; it's tried again in %g s", TICK)

    async def _see_to_mongodb(self) -> None:
        if self._connected is not None:
            for pool in self._failover.deposed(self._connected):
                try:
                    await pool.interrupt()
                except Exception:  # the others are still to be done
                    log.exception("the connections of a member that is silent could not be closed")
        if _is_over(self._attempt) and self._readiness.is_due(self.ready):
            self._attempt = asyncio.create_task(self._readiness.attempt(), name="sluice-reach")

    async def _observe(self) -> None:
        if await self._view.refresh(list(self.roles())):
            self._statistics.members = self._view.statuses


def _is_over(task: asyncio.Task[None] | None) -> bool:
    return task is None or task.done()
