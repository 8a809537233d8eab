"""A PyMongo client, as the rest of Sluice sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pymongo
from pymongo.asynchronous.pool import Pool

from sluice.changes import ChangeStream
from sluice.drivers import transactions
from sluice.drivers.arguments import client_arguments, is_srv, make_turnstile, without_secrets
from sluice.drivers.connected import CLOSING, Client, Collection, Connected, Database, MemberPool, Session, StatsOf
from sluice.drivers.members import Address, eligible, name_of
from sluice.drivers.pymongo.client import AsyncClient
from sluice.drivers.pymongo.pool import AsyncPool
from sluice.options import Options

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.pool_options import PoolOptions
    from pymongo.topology_description import TopologyDescription


async def connect(options: Options, app_name: str, stats_of: StatsOf) -> Connected:
    """See `sluice.drivers.connected.Connect`."""
    client = PyMongo(options, app_name, stats_of)
    await client.open()
    return client


class PyMongo:
    gate = None

    def __init__(self, options: Options, app_name: str, stats_of: StatsOf) -> None:
        self.pools: dict[str, MemberPool] = {}
        self._options = options
        self._stats_of = stats_of
        with without_secrets(options.url):
            self._client = AsyncClient(**client_arguments(options, app_name), _pool_class=self._make_pool)

    async def open(self) -> None:
        if is_srv(self._options):
            try:
                await self._client.aconnect()
            except BaseException:
                await self.close()
                raise

    def _make_pool(
        self, address: Address, options: PoolOptions, is_sdam: bool = False, client_id: ObjectId | None = None
    ) -> Pool:
        if is_sdam:  # the monitors' own
            return Pool(address, options, is_sdam, client_id)
        member = name_of(address)
        stats, turnstile = self._stats_of(member), partial(make_turnstile, self._options)
        pool = AsyncPool(address, options, is_sdam, client_id, stats=stats, make_turnstile=turnstile)
        self.pools = {**self.pools, member: pool}  # whoever looks through them looks through those that there were
        return pool

    @property
    def client(self) -> Client:
        return self._client

    @property
    def database(self) -> Database:
        return self._client[self._options.database]

    @property
    def topology(self) -> TopologyDescription:
        return self._client.topology_description

    def eligible(self) -> set[str]:
        return eligible(self.topology, self._client.read_preference)

    def session(self) -> AbstractAsyncContextManager[Session]:
        options = transactions.options(self._client.read_concern)
        return self._client.start_session(default_transaction_options=options)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        async with self.session() as session, await session.start_transaction():
            yield session

    async def watch(self, collection: Collection, **options: Any) -> ChangeStream:
        return await collection.watch(**options)

    async def close(self) -> None:
        with pymongo.timeout(CLOSING):
            await self._client.close()
