"""A Motor client, as the rest of Sluice sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import pymongo
from pymongo import _csot
from pymongo.synchronous.pool import Pool

from sluice.changes import ChangeStream
from sluice.drivers import transactions
from sluice.drivers.arguments import client_arguments, is_srv, make_turnstile, without_secrets
from sluice.drivers.connected import CLOSING, Client, Collection, Connected, Database, MemberPool, Session, StatsOf
from sluice.drivers.members import Address, eligible, name_of
from sluice.drivers.motor.framework import client_class
from sluice.drivers.motor.pool import SyncPool
from sluice.drivers.motor.threads import Threads
from sluice.options import Options
from sluice.statistics.snapshot import ANY_MEMBER

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.pool_options import PoolOptions
    from pymongo.topology_description import TopologyDescription


async def connect(options: Options, app_name: str, stats_of: StatsOf) -> Connected:
    """See `sluice.drivers.connected.Connect`."""
    client = Motor(options, app_name, stats_of)
    await client.open()
    return client


class Motor:
    def __init__(self, options: Options, app_name: str, stats_of: StatsOf) -> None:
        self.pools: dict[str, MemberPool] = {}
        self.gate = make_turnstile(options, "all members", stats_of(ANY_MEMBER))
        self._options = options
        self._app_name = app_name
        self._stats_of = stats_of
        self._threads = Threads(self.gate, self._driver_timeout)
        self._client: Any = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Construct Motor's client in a thread, since that may read files and resolve names."""
        arguments = client_arguments(self._options, self._app_name) | {"_pool_class": self._make_pool}
        make, loop = client_class(self._threads.run), self._loop
        with without_secrets(self._options.url):
            self._client = await asyncio.to_thread(make, **arguments, io_loop=loop)
        if is_srv(self._options):
            try:
                await self._client._connect()
            except BaseException:
                await self.close()
                raise

    def _driver_timeout(self) -> AbstractContextManager[Any]:
        """`timeoutMS`, unless the caller has set a timeout with `pymongo.timeout()`."""
        setting = self._client.options.timeout
        return nullcontext() if setting is None or _csot.get_timeout() is not None else pymongo.timeout(setting)

    def _make_pool(
        self, address: Address, options: PoolOptions, is_sdam: bool = False, client_id: ObjectId | None = None
    ) -> Pool:
        if is_sdam:  # the monitors' own
            return Pool(address, options, is_sdam, client_id)
        member = name_of(address)
        pool = SyncPool(address, options, is_sdam, client_id, stats=self._stats_of(member), narrow=self._narrow)
        self.pools = {**self.pools, member: pool}  # this is a monitor's thread, and the loop may just look through them
        return pool

    def _narrow(self) -> None:
        self._loop.call_soon_threadsafe(self.gate.narrow)

    @property
    def client(self) -> Client:
        return cast("Client", self._client)

    @property
    def database(self) -> Database:
        return cast("Database", self._client[self._options.database])

    @property
    def topology(self) -> TopologyDescription:
        return cast("TopologyDescription", self._client.topology_description)

    def eligible(self) -> set[str]:
        return eligible(self.topology, self._client.read_preference)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        options = transactions.options(self._client.read_concern)
        async with await self._client.start_session(default_transaction_options=options) as session:
            yield session

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        async with self.session() as session:
            begun: Any = session.start_transaction()  # Motor's isn't awaited
            async with begun:
                yield session

    async def watch(self, collection: Collection, **options: Any) -> ChangeStream:
        stream: Any = collection.watch(**options)
        return cast("ChangeStream", await stream.__aenter__())

    async def close(self) -> None:
        self._threads.refuse()
        if self._client is not None:
            with pymongo.timeout(CLOSING):
                await asyncio.to_thread(self._client.close)
        self._threads.end()
