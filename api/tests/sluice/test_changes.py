"""A collection's changes, on both drivers: none is lost, none costs the pool a connection for long, nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from pymongo.errors import OperationFailure

from sluice import Changes, PoolUnavailable, QueueFull, QueueTimeout, Sluice, deadline
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, held, queue, quick, settle, slow, with_one_document
from tests.sluice.test_finishing import background, open_cursors

PAUSE = 0.02
INSERTS = [{"$match": {"operationType": "insert"}}]


def cursors(replica_set: ReplicaSet, sluice: Sluice) -> int:
    return open_cursors(replica_set, f"{sluice.database.name}.orders")


async def insert(sluice: Sluice, *numbers: int) -> None:
    for number in numbers:
        await sluice.collection("orders").insert_one({"_id": number})


async def some(changes: Changes, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        return [await anext(changes) for _ in range(count)]


def keys(found: list[dict[str, Any]]) -> list[int]:
    return [change["documentKey"]["_id"] for change in found]


@asynccontextmanager
async def watched(sluice: Sluice, **options: Any) -> AsyncIterator[Changes]:
    async with sluice.watch("orders", INSERTS, pause=PAUSE, **options) as changes:
        yield changes


async def test_changes_come_in_order_and_go_on_where_somebody_stopped(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    async with watched(sluice) as changes:
        await insert(sluice, 1, 2)
        await sluice.collection("orders").update_one({"_id": 1}, {"$set": {"n": 1}})  # the pipeline leaves it out
        await insert(sluice, 3)
        found = await some(changes, 3)
    assert keys(found) == [1, 2, 3]
    assert found[0]["fullDocument"] == {"_id": 1}
    await insert(sluice, 4)
    async with watched(sluice, resume_after=found[1]["_id"]) as changes:
        assert keys(await some(changes, 2)) == [3, 4]


async def test_whoever_leaves_before_the_first_change_misses_none(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await insert(sluice, 1)
    async with watched(sluice) as changes:
        token = changes.resume_token
    await insert(sluice, 2)
    async with watched(sluice, resume_after=token) as changes:
        assert keys(await some(changes, 1)) == [2]
        token = changes.resume_token
    await insert(sluice, 3)
    async with watched(sluice, resume_after=token) as changes:
        assert keys(await some(changes, 1)) == [3]


async def test_many_streams_leave_a_small_pool_to_others(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(max_pool_size=4, wait_queue_multiple=10)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watched(sluice)) for _ in range(12)]
        waiting = [asyncio.create_task(some(stream, 1)) for stream in streams]
        for _ in range(50):  # each would time out if streams kept their connections
            async with deadline.limit(1):
                await quick(sluice)
        assert not any(task.done() for task in waiting)
        await insert(sluice, 1)
        assert [keys(found) for found in await settle(waiting)] == [[1]] * 12
    await until(lambda: held(sluice) == 0)
    assert cursors(replica_set, sluice) == 0


async def test_a_full_pool_delays_changes_and_ends_no_stream(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1, wait_queue_timeout=0.5)
    await with_one_document(sluice)

    def refusals() -> int:
        return queue(sluice).refused_queue_full + queue(sluice).refused_queue_timeout

    async with watched(sluice) as changes:
        waiting = asyncio.create_task(some(changes, 2))
        await insert(sluice, 1)
        before = refusals()
        busy = background(slow(sluice, 2))
        await until(lambda: refusals() > before)
        assert not waiting.done()
        await busy
        await insert(sluice, 2)
        assert keys(await waiting) == [1, 2]


async def test_what_keeps_a_stream_from_opening_is_raised(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1, wait_queue_timeout=0.1)
    await with_one_document(sluice)
    with pytest.raises(OperationFailure) as garbage:
        async with watched(sluice, resume_after={"_data": "82"}):
            pass
    assert garbage.value.code is not None
    busy = background(slow(sluice, 0.5))
    await until(lambda: held(sluice) == 1)
    with pytest.raises((QueueFull, QueueTimeout)):
        async with watched(sluice):
            pass
    await busy
    await sluice.close()
    with pytest.raises(PoolUnavailable):
        async with watched(sluice):
            pass


async def test_an_election_loses_no_change(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    async with watched(sluice) as changes:
        await insert(sluice, 1)
        assert keys(await some(changes, 1)) == [1]
        replica_set.kill(replica_set.primary())
        await insert(sluice, 2)
        assert keys(await some(changes, 1)) == [2]


async def test_a_stream_that_the_server_fails_says_so(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    await insert(sluice, 1)
    async with watched(sluice) as changes:
        fail(replica_set, replica_set.primary(), ["getMore"], errorCode=13)
        with pytest.raises(OperationFailure, match="failpoint"):
            await some(changes, 1)


@pytest.mark.parametrize("inside", ["stream", "scope"])
async def test_whoever_goes_leaves_nothing_behind(
    open_sluice: OpenSluice, replica_set: ReplicaSet, inside: str
) -> None:
    """Cancelled in the middle of a question, as asyncio does it once, and as anyio does it until the end."""
    sluice = await open_sluice()
    await insert(sluice, 1)
    created = queue(sluice).total_created
    for _ in range(20):
        asked = asyncio.Event()

        async def listen(asked: asyncio.Event) -> None:
            async with sluice.watch("orders", pause=0) as changes:
                asked.set()
                async for _ in changes:
                    pass

        if inside == "scope":
            async with anyio.create_task_group() as group:
                group.start_soon(listen, asked)
                await asked.wait()
                await until(lambda: held(sluice) == 1)
                group.cancel_scope.cancel()
        else:
            task = asyncio.create_task(listen(asked))
            await asked.wait()
            await until(lambda: held(sluice) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await until(lambda: held(sluice) == 0)
    await until(lambda: cursors(replica_set, sluice) == 0)
    assert queue(sluice).total_created - created <= 2  # nor did any of them cost a connection


async def test_whoever_goes_while_it_opens_leaves_nothing_behind(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice()
    await insert(sluice, 1)
    block = {"blockConnection": True, "blockTimeMS": 300}
    fail(replica_set, replica_set.primary(), ["aggregate"], **block)
    task = asyncio.create_task(watched(sluice).__aenter__())
    await until(lambda: held(sluice) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: held(sluice) == 0)
    assert cursors(replica_set, sluice) == 0


async def test_the_end_of_the_collection_is_the_end_of_its_changes(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await insert(sluice, 1)
    async with sluice.watch("orders", pause=PAUSE) as changes:
        await sluice.collection("orders").drop()
        async with asyncio.timeout(30):
            assert [change["operationType"] async for change in changes] == ["drop", "invalidate"]


async def test_one_that_is_not_open_says_so(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    with pytest.raises(RuntimeError, match="async with"):
        await anext(sluice.watch("orders"))
    with pytest.raises(RuntimeError, match="async with"):
        _ = sluice.watch("orders").resume_token


async def test_whoever_stops_waiting_and_waits_again_misses_none(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(60), watched(sluice) as changes:
        inserting = asyncio.create_task(insert(sluice, *range(100)))
        while len(found) < 100:
            try:
                found.append(await asyncio.wait_for(anext(changes), 0.0005))
            except TimeoutError:
                continue
        await inserting
    assert keys(found) == list(range(100))


@pytest.mark.parametrize("pause", [-1, float("nan"), float("inf"), "1", True])
async def test_a_pause_is_one(open_sluice: OpenSluice, pause: Any) -> None:
    sluice = await open_sluice(wait=False)
    with pytest.raises(ValueError, match="allowed is 0 or more, in seconds"):
        sluice.watch("orders", pause=pause)


async def test_an_election_that_lasts_longer_than_the_driver_waits_loses_none(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(server_selection_timeout=0.2)
    other = await open_sluice(server_selection_timeout=30, database=sluice.database.name)
    async with asyncio.timeout(60), watched(sluice) as changes:
        await insert(other, 1)
        assert keys(await some(changes, 1)) == [1]
        waiting = asyncio.create_task(some(changes, 2))
        primary = await asyncio.to_thread(replica_set.primary)
        await asyncio.to_thread(replica_set.kill, primary)
        await insert(other, 2, 3)
        assert keys(await waiting) == [2, 3]
