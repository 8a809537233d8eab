"""What a user of the driver catches, sees and sets works with Sluice's pools, too."""

from __future__ import annotations

import asyncio
import inspect
import time
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any

import pymongo
import pytest
from pymongo import _csot, monitoring
from pymongo.errors import ConnectionFailure, WaitQueueTimeoutError
from pymongo.read_preferences import Nearest, SecondaryPreferred

from sluice import PoolUnavailable, QueueFull, QueueTimeout, Sluice, deadline
from sluice.errors import PoolClosed
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import held, quick, settle, slow, total, with_one_document


def generations(sluice: Sluice) -> dict[str, int]:
    """How often each member's pool was cleared."""
    assert sluice._connected is not None
    pools: dict[str, Any] = dict(sluice._connected.pools)
    return {member: pool.gen.get_overall() for member, pool in pools.items()}


async def find(sluice: Sluice) -> object:
    return await quick(sluice)


async def insert(sluice: Sluice) -> object:
    return await sluice.collection("slow").insert_one({})


async def list_all(sluice: Sluice) -> object:
    return await sluice.collection("slow").find().to_list(10)


@pytest.mark.parametrize("operation", [find, insert, list_all])
@pytest.mark.parametrize("seconds", [None, 3.0])
async def test_refusals_are_the_drivers_own_kind_and_neither_retried_nor_held_against_the_member(
    open_sluice: OpenSluice, operation: Callable[[Sluice], Coroutine[Any, Any, object]], seconds: float | None
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1, wait_queue_timeout=0.4)
    await with_one_document(sluice)
    before = (sluice.roles(), generations(sluice))
    holder = asyncio.create_task(slow(sluice, 1.5))
    await until(lambda: total(sluice).pool.active_connections == 1)
    waiter = asyncio.create_task(operation(sluice))
    await until(lambda: total(sluice).pool.waiting == 1)
    started = time.monotonic()
    with pytest.raises(WaitQueueTimeoutError) as full, pymongo.timeout(seconds) if seconds else nullcontext():
        await operation(sluice)
    assert time.monotonic() - started < 0.3
    with pytest.raises(WaitQueueTimeoutError) as late:
        await waiter
    assert time.monotonic() - started < 0.4 + 0.3
    pool = total(sluice).pool
    assert (pool.refused_queue_full, pool.refused_queue_timeout) == (1, 1)
    assert (type(full.value), type(late.value)) == (QueueFull, QueueTimeout)
    for error in (full.value, late.value):
        assert isinstance(error, ConnectionFailure)
        assert error.timeout
        assert error.has_error_label("NoWritesPerformed")
        assert not error.has_error_label("RetryableWriteError")
    assert (sluice.roles(), generations(sluice)) == before
    await settle([holder])


def test_a_client_that_is_not_there_is_a_connection_failure() -> None:
    assert issubclass(PoolUnavailable, ConnectionFailure)


class Checkouts(monitoring.ConnectionPoolListener):
    """Counts as an application's monitoring does."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def _ignore(self, event: object) -> None:
        pass

    pool_created = pool_ready = pool_cleared = pool_closed = _ignore
    connection_created = connection_ready = connection_closed = _ignore

    def connection_check_out_started(self, event: object) -> None:
        self.counts["started"] += 1

    def connection_checked_out(self, event: object) -> None:
        self.counts["out"] += 1

    def connection_checked_in(self, event: object) -> None:
        self.counts["in"] += 1

    def connection_check_out_failed(self, event: monitoring.ConnectionCheckOutFailedEvent) -> None:
        self.counts["failed"] += 1
        self.reasons[event.reason] += 1


async def test_every_checkout_that_began_is_told_to_have_ended(open_sluice: OpenSluice, driver: str) -> None:
    checkouts = Checkouts()
    listening = {"event_listeners": [checkouts]}
    sluice = await open_sluice(client=listening, max_pool_size=1, wait_queue_multiple=3, wait_queue_timeout=0.5)
    await with_one_document(sluice)
    holder = asyncio.create_task(slow(sluice, 1))
    await until(lambda: total(sluice).pool.active_connections == 1)
    waiters = [asyncio.create_task(quick(sluice)) for _ in range(3)]
    await until(lambda: total(sluice).pool.waiting == 3)
    refused = await settle([asyncio.create_task(quick(sluice)) for _ in range(2)])
    waiters[0].cancel()
    late = await settle(waiters)
    await holder
    holder = asyncio.create_task(slow(sluice, 1))
    await until(lambda: total(sluice).pool.active_connections == 1)
    waiters = [asyncio.create_task(quick(sluice)) for _ in range(2)]
    await until(lambda: total(sluice).pool.waiting == 2)
    await sluice.close()
    evicted = await settle([*waiters, holder])
    assert [type(error) for error in (*refused, *late)] == [
        QueueFull, QueueFull, asyncio.CancelledError, QueueTimeout, QueueTimeout,
    ]  # fmt: skip
    assert all(isinstance(error, Exception) for error in evicted[:2])
    counts = checkouts.counts
    await until(lambda: counts["in"] == counts["out"])
    assert counts["started"] == counts["out"] + counts["failed"]
    if driver == "pymongo":  # Motor's waiters stand before all members, so no checkout has begun
        assert checkouts.reasons["timeout"] == 4
        assert checkouts.reasons["connectionError"] == 1
        assert checkouts.reasons["poolClosed"] >= 2


async def test_waiters_of_a_cleared_pool_are_told_to_have_failed(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    checkouts = Checkouts()
    sluice = await open_sluice(client={"event_listeners": [checkouts]}, max_pool_size=1)
    await with_one_document(sluice)
    holder = asyncio.create_task(slow(sluice, 1))
    await until(lambda: total(sluice).pool.active_connections == 1)
    waiters = [asyncio.create_task(quick(sluice)) for _ in range(3)]
    await until(lambda: total(sluice).pool.waiting == 3)
    replica_set.kill(replica_set.primary())
    await settle([holder, *waiters])
    await until(lambda: held(sluice) == 0)
    counts = checkouts.counts
    assert counts["started"] == counts["out"] + counts["failed"]
    assert counts["in"] == counts["out"]


@pytest.mark.parametrize("how", ["timeout()", "timeoutMS", "timeout() in a limit"])
async def test_the_drivers_own_timeout_shortens_the_wait(
    open_sluice: OpenSluice, replica_set: ReplicaSet, how: str
) -> None:
    url = replica_set.url + ("&timeoutMS=300" if how == "timeoutMS" else "")
    sluice = await open_sluice(max_pool_size=1, url=url, wait_queue_timeout=5)
    with pymongo.timeout(10):  # also for a client with a timeout of its own
        await with_one_document(sluice)
        holder = asyncio.create_task(slow(sluice, 1.5))
        await until(lambda: total(sluice).pool.active_connections == 1)
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        limit: AbstractAsyncContextManager[None] = deadline.limit(4)
        if how == "timeout() in a limit":
            await stack.enter_async_context(limit)
        with pymongo.timeout(0.3) if how != "timeoutMS" else nullcontext(), pytest.raises(QueueTimeout) as caught:
            await quick(sluice)
    assert 0.25 < time.monotonic() - started < 0.8
    assert caught.value.timeout
    assert total(sluice).pool.refused_queue_timeout == 1
    await settle([holder])


async def test_the_round_trip_stays_allowed_for_inside_a_deadline(open_sluice: OpenSluice, driver: str) -> None:
    sluice = await open_sluice()
    client: Any = sluice.database.client
    [primary] = [member for member, role in sluice.roles().items() if role == "RSPrimary"]
    host, _, port = primary.rpartition(":")

    def measured() -> float:
        description = client.topology_description.server_descriptions()[host, int(port)]
        return float(description.min_round_trip_time)

    await until(lambda: measured() > 0)  # after two of the monitor's samples

    def select() -> float:
        client.delegate._select_server(client.delegate.read_preference, None, "find")
        return _csot.get_rtt()

    with pymongo.timeout(3):
        async with deadline.limit(5):
            if driver == "motor":
                allowed = await asyncio.to_thread(select)
            else:
                await client._select_server(client.read_preference, None, "find")
                allowed = _csot.get_rtt()
    assert allowed > 0


async def test_read_preferences_are_compared_without_a_warning(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        preferences = [Nearest(hedge={"enabled": True}) for _ in range(3)]
    collection: Any = sluice.collection("slow")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for preference in [*preferences, *preferences, SecondaryPreferred()]:
            await collection.with_options(read_preference=preference).find_one({})


async def test_a_closed_pool_says_that_nothing_was_written(open_sluice: OpenSluice) -> None:
    """So that a write that the driver repeats while its worker closes fails with what its first attempt met."""
    sluice = await open_sluice()
    connected = sluice._connected
    assert connected is not None
    pools: list[Any] = list(connected.pools.values())
    for pool in pools:
        closing = pool.close()
        if inspect.isawaitable(closing):
            await closing
    with pytest.raises(PoolClosed) as refused:
        await sluice.collection("slow").insert_one({})
    assert refused.value.has_error_label("NoWritesPerformed")
