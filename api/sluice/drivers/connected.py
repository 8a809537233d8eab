"""A client and its pools, as the rest of Sluice sees them, whichever driver they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from pymongo import AsyncMongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.topology_description import TopologyDescription

from sluice.changes import ChangeStream
from sluice.drivers.tracker import Tracker
from sluice.options import Options
from sluice.pool.turnstile import Turnstile
from sluice.statistics.snapshot import PoolStats

Document: TypeAlias = dict[str, Any]
Client: TypeAlias = AsyncMongoClient[Document]
Database: TypeAlias = AsyncDatabase[Document]
Session: TypeAlias = AsyncClientSession
Collection: TypeAlias = AsyncCollection[Document]
"""Motor's have the methods that repositories use, under the same names."""

CLOSING = 1.0
"""Seconds that closing may look for a member to end its sessions on."""


class MemberPool(Protocol):
    """One member's pool."""

    tracker: Tracker

    @property
    def closed(self) -> bool: ...

    @property
    def paused(self) -> bool:
        """The driver holds it back until it reaches the member again; or it is closed."""

    @property
    def is_waited_for(self) -> bool:
        """Whether operations have connections of it, or wait for one, and it isn't paused."""

    async def interrupt(self) -> None:
        """Close every connection, also those in use: their operations fail as if the member had broken them."""

    def stats(self, eligible: bool) -> PoolStats:
        """What it has counted, and how it is now."""


class Connected(Protocol):
    """A client."""

    @property
    def pools(self) -> dict[str, MemberPool]:
        """By member, as `host:port`."""

    @property
    def gate(self) -> Turnstile | None:
        """The turnstile before all members; None where each pool has its own."""

    @property
    def client(self) -> Client: ...

    @property
    def database(self) -> Database: ...

    @property
    def topology(self) -> TopologyDescription: ...

    def eligible(self) -> set[str]:
        """The members that the default read preference may use now, as `host:port`."""

    def session(self) -> AbstractAsyncContextManager[Session]: ...

    def transaction(self) -> AbstractAsyncContextManager[Session]: ...

    async def watch(self, collection: Collection, **options: Any) -> ChangeStream:
        """A change stream with these of the driver's own options, opened."""

    async def close(self) -> None: ...


def usable(connected: Connected) -> dict[str, MemberPool]:
    """The members that an operation with the default read preference could use now, and their pools.

    What "a member that can be used" means is decided here alone: the driver would select it, and its pool isn't paused.
    """
    eligible, pools = connected.eligible(), connected.pools
    return {member: pool for member, pool in pools.items() if member in eligible and not pool.paused}


StatsOf: TypeAlias = Callable[[str], PoolStats]
"""Where the pool of a member (`host:port`) counts."""

Connect: TypeAlias = Callable[[Options, str, StatsOf], Awaitable[Connected]]
"""Make a client that the members know by this name; waits for DNS at most, never for MongoDB.

Raises what the driver raises for a `mongodb+srv` name that can't be resolved (`ConfigurationError`).
"""
