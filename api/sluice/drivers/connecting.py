"""The seam between Sluice and its two drivers: all that differs between them is here.

`pymongo`: each member's pool has its turnstile (`AsyncPool`). `motor`: one turnstile over all members stands before
the thread pool, which has as many threads as the turnstile has slots; an operation that has started can't be
cancelled and holds its slot until its thread is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

import motor.core
import motor.frameworks.asyncio
import pymongo
from motor.metaprogramming import create_class_with_framework
from pymongo import _csot
from pymongo.asynchronous import pool as asynchronous
from pymongo.client_session import ClientSession
from pymongo.synchronous import pool as synchronous

from sluice.drivers.clients import AsyncClient, SyncClient
from sluice.drivers.finishing import MOTOR_ENDINGS, UnderWay, in_transaction, motor_claim_of, needs_no_server
from sluice.drivers.pools import Address, AsyncPool, MemberPool, SyncPool, already_waited, name_of
from sluice.errors import PoolUnavailable, QueueTimeout
from sluice.options import Options
from sluice.pool.turnstile import Claim, Turnstile
from sluice.statistics.snapshot import ANY_MEMBER, PoolStats

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.asynchronous.client_session import AsyncClientSession
    from pymongo.asynchronous.database import AsyncDatabase
    from pymongo.pool_options import PoolOptions
    from pymongo.topology_description import TopologyDescription

P = ParamSpec("P")
R = TypeVar("R")
Document = dict[str, Any]

CLOSING = 1.0
"""Seconds that closing may look for a member to end its sessions on."""


class Connected(Protocol):
    """A client, as the rest of Sluice sees it."""

    pools: dict[str, MemberPool]
    gate: Turnstile | None
    """The turnstile before all members; None where each pool has its own."""

    @property
    def database(self) -> AsyncDatabase[Document]: ...

    @property
    def topology(self) -> TopologyDescription: ...

    def eligible(self) -> set[str]:
        """The members that the default read preference may use now, as `host:port`."""

    def transaction(self) -> AbstractAsyncContextManager[AsyncClientSession]: ...

    async def close(self) -> None: ...


async def connect(options: Options, app_name: str, stats_of: Callable[[str], PoolStats]) -> Connected:
    """A client whose pools count into `stats_of(member)`; waits for DNS at most, never for MongoDB.

    Raises what the driver raises for a `mongodb+srv` name that can't be resolved (`ConfigurationError`).
    """
    opener = _Motor if options.driver == "motor" else _PyMongo
    client = opener(options, app_name, stats_of)
    await client.open()
    return client


def _is_srv(options: Options) -> bool:
    """Whether DNS must be asked for the members; until it has answered there is nothing to connect to."""
    return options.url.startswith("mongodb+srv:")


def _client_arguments(options: Options, app_name: str) -> dict[str, Any]:
    codec = {"tz_aware": True, "uuidRepresentation": "standard"}
    return {
        **{name: value for name, value in codec.items() if name.lower() not in options.given},
        **options.client,
        "host": options.url,
        "appname": app_name,
        "maxPoolSize": options.max_pool_size,
        "minPoolSize": options.min_pool_size,
        "maxIdleTimeMS": None if options.max_idle_time is None else int(options.max_idle_time * 1000),
        "connectTimeoutMS": int(options.connect_timeout * 1000),
        "socketTimeoutMS": int(options.socket_timeout * 1000),
        "serverSelectionTimeoutMS": int(options.server_selection_timeout * 1000),
        "heartbeatFrequencyMS": int(options.heartbeat_frequency * 1000),
        "waitQueueTimeoutMS": int(options.wait_queue_timeout * 1000),
    }


def _turnstile(options: Options, name: str, stats: PoolStats, has_room: Callable[[], bool]) -> Turnstile:
    return Turnstile(
        name,
        slots=options.max_pool_size,
        queue_limit=options.queue_limit,
        timeout=options.wait_queue_timeout,
        stats=stats,
        has_room=has_room,
    )


class _PyMongo:
    def __init__(self, options: Options, app_name: str, stats_of: Callable[[str], PoolStats]) -> None:
        self.pools: dict[str, MemberPool] = {}
        self.gate: Turnstile | None = None
        self._options = options
        self._stats_of = stats_of
        self._client = AsyncClient(**_client_arguments(options, app_name), _pool_class=self._make_pool)

    async def open(self) -> None:
        if _is_srv(self._options):
            try:
                await self._client.aconnect()
            except BaseException:
                await self.close()
                raise

    def _make_pool(
        self, address: Address, options: PoolOptions, is_sdam: bool = False, client_id: ObjectId | None = None
    ) -> asynchronous.Pool:
        if is_sdam:  # the monitors' own
            return asynchronous.Pool(address, options, is_sdam, client_id)
        member = name_of(address)
        pool = AsyncPool(
            address,
            options,
            is_sdam,
            client_id,
            stats=self._stats_of(member),
            make_turnstile=lambda name, stats, has_room: _turnstile(self._options, name, stats, has_room),
        )
        self.pools[member] = pool
        return pool

    @property
    def database(self) -> AsyncDatabase[Document]:
        return self._client[self._options.database]

    @property
    def topology(self) -> TopologyDescription:
        return self._client.topology_description

    def eligible(self) -> set[str]:
        return _eligible(self.topology, self._client.read_preference)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncClientSession]:
        async with self._client.start_session() as session, await session.start_transaction():
            yield session

    async def close(self) -> None:
        with pymongo.timeout(CLOSING):
            await self._client.close()


def _add_future(
    loop: asyncio.AbstractEventLoop, inner: asyncio.Future[Any], callback: Callable[..., None], *arguments: Any
) -> None:
    """As Motor's own, but whoever gives up a cursor's `to_list` also gives up the batch that it waits for."""
    outer = [argument for argument in arguments if asyncio.isfuture(argument)]

    def hand_over(done: asyncio.Future[Any]) -> None:
        if not any(future.cancelled() for future in outer):
            loop.call_soon(partial(callback, *arguments, done))

    def give_up(done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            inner.cancel()

    inner.add_done_callback(hand_over)
    for future in outer:
        future.add_done_callback(give_up)


class _AgnosticSession(motor.core.AgnosticClientSession):
    """Motor would abort a transaction that is left open on the event loop's own thread.

    Whoever is cancelled again and again while it ends goes at once; it ends all the same.
    """

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.end_session())


class _AgnosticClient(motor.core.AgnosticClient[Document]):
    __delegate_class__ = SyncClient

    def wrap(self, obj: Any) -> Any:
        if isinstance(obj, ClientSession):
            return create_class_with_framework(_AgnosticSession, self._framework, self.__module__)(obj, self)
        return super().wrap(obj)


class _Motor:
    def __init__(self, options: Options, app_name: str, stats_of: Callable[[str], PoolStats]) -> None:
        self.pools: dict[str, MemberPool] = {}
        self._options = options
        self._app_name = app_name
        self._stats_of = stats_of
        self._gate = _turnstile(options, "all members", stats_of(ANY_MEMBER), lambda: True)
        self.gate: Turnstile | None = self._gate
        self._threads = ThreadPoolExecutor(options.max_pool_size, thread_name_prefix="sluice-motor")
        self._loop = asyncio.get_running_loop()
        self._under_way = UnderWay()
        self._client: Any = None
        self._closed = False

    async def open(self) -> None:
        """Construct Motor's client in a thread, since that may read files and resolve names."""
        client_class = create_class_with_framework(_AgnosticClient, self._framework(), "motor.motor_asyncio")
        arguments = _client_arguments(self._options, self._app_name) | {"_pool_class": self._make_pool}
        self._client = await asyncio.to_thread(client_class, **arguments, io_loop=self._loop)
        if _is_srv(self._options):
            try:
                await self._client._connect()
            except BaseException:
                await self.close()
                raise

    def _framework(self) -> types.ModuleType:
        """Motor's asyncio framework, but with our way into the threads."""
        framework = types.ModuleType("sluice_motor_framework")
        vars(framework).update(vars(motor.frameworks.asyncio))
        vars(framework)["run_on_executor"] = self._run_on_executor
        vars(framework)["add_future"] = _add_future
        return framework

    def _run_on_executor(
        self, loop: asyncio.AbstractEventLoop, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[R]:
        return loop.create_task(self._in_turn(function, *args, **kwargs))

    async def _in_turn(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        values = (*args, *kwargs.values())
        session = in_transaction(values)
        if session is not None and function in MOTOR_ENDINGS:
            await self._under_way.settle(session)
            session = in_transaction(values)
        if needs_no_server(function, session):
            return function(*args, **kwargs)
        if self._closed:
            raise PoolUnavailable("the MongoDB client is closed")
        with self._driver_timeout():  # begins here, not in the thread
            started = self._loop.time()
            claim = motor_claim_of(function, session)
            try:
                await self._gate.enter(claim)
            except QueueTimeout as error:
                if claim is Claim.BEGUN:  # as the driver does it: the transaction may be tried again as a whole
                    error._add_error_label("TransientTransactionError")
                raise
            context = contextvars.copy_context()
        context.run(already_waited.set, self._loop.time() - started)
        try:
            job = self._threads.submit(partial(context.run, partial(function, *args, **kwargs)))
        except BaseException:
            self._gate.leave()
            raise
        over = self._under_way.add(session) if session is not None else None
        job.add_done_callback(partial(self._leave, over))
        return await asyncio.wrap_future(job)

    def _driver_timeout(self) -> AbstractContextManager[Any]:
        """`timeoutMS`, unless the caller has set a timeout with `pymongo.timeout()`."""
        setting = self._client.options.timeout
        return nullcontext() if setting is None or _csot.get_timeout() is not None else pymongo.timeout(setting)

    def _leave(self, over: Callable[[], None] | None, job: Future[R]) -> None:
        """Called in the thread when the operation is really over, whoever still waits for it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._gate.leave)
            if over is not None:
                self._loop.call_soon_threadsafe(over)

    def _make_pool(
        self, address: Address, options: PoolOptions, is_sdam: bool = False, client_id: ObjectId | None = None
    ) -> synchronous.Pool:
        if is_sdam:
            return synchronous.Pool(address, options, is_sdam, client_id)
        member = name_of(address)
        pool = SyncPool(address, options, is_sdam, client_id, stats=self._stats_of(member))
        self.pools[member] = pool
        return pool

    @property
    def database(self) -> AsyncDatabase[Document]:
        # Motor's classes have the methods that repositories use, under the same names.
        return cast("AsyncDatabase[Document]", self._client[self._options.database])

    @property
    def topology(self) -> TopologyDescription:
        return cast("TopologyDescription", self._client.topology_description)

    def eligible(self) -> set[str]:
        return _eligible(self.topology, self._client.read_preference)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncClientSession]:
        async with await self._client.start_session() as session, session.start_transaction():
            yield session

    async def close(self) -> None:
        self._closed = True
        self._gate.evict(lambda: PoolUnavailable("the MongoDB client was closed"))
        if self._client is not None:
            with pymongo.timeout(CLOSING):
                await asyncio.to_thread(self._client.close)
        self._threads.shutdown(wait=False)


def _eligible(topology: TopologyDescription, read_preference: Callable[[Any], Any]) -> set[str]:
    return {name_of(server.address) for server in topology.apply_selector(read_preference)}
