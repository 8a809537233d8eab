"""Whoever asked has gone: what wasn't sent isn't, a write that was goes on, a long read ends; on both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout

from sluice import Abandoned, Limits, Sluice, deadline
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, held, quick, slow, total, with_one_document


class Request:
    """Work within a limit, in a task of its own; whoever asked for it may go."""

    def __init__(self, work: Callable[[], Awaitable[Any]]) -> None:
        self.limit = deadline.limit(20)
        self.task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async with self.limit:
            return await work()

    async def outcome(self) -> Any:
        return (await asyncio.gather(self.task, return_exceptions=True))[0]


async def filled(sluice: Sluice) -> asyncio.Task[None]:
    """A pool of one whose connection is in use for a second."""
    await with_one_document(sluice)
    user = asyncio.create_task(slow(sluice, 1))
    await until(lambda: held(sluice) == 1)
    return user


@pytest.mark.parametrize("reads", [True, False])
async def test_what_waits_for_a_connection_is_not_sent(open_sluice: OpenSluice, reads: bool) -> None:
    sluice = await open_sluice(max_pool_size=1)
    user = await filled(sluice)
    insert = sluice.collection("slow").insert_one
    request = Request(lambda: quick(sluice) if reads else insert({"_id": 2}))
    await until(lambda: total(sluice).pool.waiting == 1)
    request.limit.abandon(reads=reads)
    assert isinstance(await request.outcome(), Abandoned)
    assert not user.done()
    await user
    assert await sluice.collection("slow").count_documents({}) == 1
    assert held(sluice) == 0


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_what_waits_for_a_batch_leaves_it_and_the_others_stay(open_sluice: OpenSluice, kind: str) -> None:
    sluice = await open_sluice(max_pool_size=1)
    user = await filled(sluice)
    one_at_a_time = Limits(lanes=1, patience=60)

    reader = sluice.reader("slow", limits=one_at_a_time) if kind == "read" else None
    writer = sluice.writer("slow", limits=one_at_a_time) if kind == "write" else None

    async def work(number: int) -> Any:
        if reader is not None:
            return await reader.get(1)
        assert writer is not None
        return await writer.insert({"_id": number})

    first = Request(lambda: work(10))  # has the only lane, and waits for a connection
    await until(lambda: total(sluice).coalescing[0].in_flight == 1)
    staying, going = Request(lambda: work(11)), Request(lambda: work(12))
    await until(lambda: total(sluice).coalescing[0].waiting == 2)
    going.limit.abandon(reads=kind == "read")
    assert isinstance(await going.outcome(), Abandoned)
    await user
    assert [await first.outcome(), await staying.outcome()] == ([{"_id": 1}] * 2 if kind == "read" else [10, 11])
    found = await sluice.collection("slow").distinct("_id")
    assert found == ([1] if kind == "read" else [1, 10, 11])


async def test_what_has_written_goes_on_to_its_end(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=2)
    written, gone = asyncio.Event(), asyncio.Event()

    async def two_halves() -> str:
        await sluice.collection("slow").insert_one({"_id": "first"})
        written.set()
        await gone.wait()
        await sluice.writer("slow").insert({"_id": "second"})
        return "done"

    request = Request(two_halves)
    await written.wait()
    request.limit.abandon(reads=False)
    gone.set()
    assert await request.outcome() == "done"
    assert await sluice.collection("slow").count_documents({}) == 2


async def test_what_comes_later_is_not_sent_either(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    read, gone = asyncio.Event(), asyncio.Event()

    async def read_then_write() -> None:
        await quick(sluice)
        read.set()
        await gone.wait()
        await sluice.collection("slow").insert_one({"_id": 2})

    request = Request(read_then_write)
    await read.wait()
    before = total(sluice).pool
    request.limit.abandon(reads=False)
    gone.set()
    assert isinstance(await request.outcome(), Abandoned | ExecutionTimeout)
    assert await sluice.collection("slow").count_documents({}) == 1
    assert total(sluice).pool.closed == before.closed


async def test_a_long_read_ends(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    request = Request(lambda: slow(sluice, 30))
    await until(lambda: total(sluice).pool.active_connections == 1)
    request.limit.abandon(reads=True)
    assert isinstance(await request.outcome(), Abandoned)


async def test_a_read_that_ends_in_a_moment_keeps_its_connection(
    open_sluice: OpenSluice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "LET_FINISH", 10)  # a moment of a busy machine
    sluice = await open_sluice()
    await with_one_document(sluice)
    request = Request(lambda: slow(sluice, 0.1))
    await until(lambda: total(sluice).pool.active_connections == 1)
    before = total(sluice).pool.closed
    request.limit.abandon(reads=True)
    assert await request.outcome() is None
    assert total(sluice).pool.closed == before


async def test_a_batch_of_reads_ends_when_all_have_gone(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str
) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    reader = sluice.reader("slow", limits=Limits(lanes=1, patience=60))
    lane = reader._coalescer.take_lane()
    assert lane is not None
    requests = [Request(lambda number=number: reader.get(number)) for number in range(8)]  # type: ignore[misc]
    await until(lambda: total(sluice).coalescing[0].waiting == 8)
    fail(replica_set, replica_set.primary(), ["find"], times=1, blockConnection=True, blockTimeMS=20_000)
    reader._coalescer.leave_lane(lane)
    await until(lambda: held(sluice) == 1)
    for request in requests[1:]:
        request.limit.abandon(reads=True)
    await asyncio.gather(*(request.outcome() for request in requests[1:]))
    await asyncio.sleep(2 * deadline.LET_FINISH)
    assert total(sluice).coalescing[0].in_flight == 1  # one still waits
    requests[0].limit.abandon(reads=True)
    assert isinstance(await requests[0].outcome(), Abandoned)
    await until(lambda: total(sluice).coalescing[0].in_flight == 0)
    if driver == "pymongo":  # Motor's thread goes on
        await until(lambda: held(sluice) == 0)
