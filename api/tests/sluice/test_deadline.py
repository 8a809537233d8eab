"""A request's time: everything draws on it, and a timeout costs no connection."""

from __future__ import annotations

import asyncio
import time

import pytest
from pymongo.errors import ExecutionTimeout, PyMongoError

from sluice import DeadlineExceeded, QueueTimeout, deadline
from tests.conftest import OpenSluice, until
from tests.replica_set import ReplicaSet
from tests.sluice.support import connections_of, held, settle, slow, total, with_one_document


async def test_the_shorter_of_two_limits_counts() -> None:
    async with deadline.limit(10):
        async with deadline.limit(1):
            assert (deadline.remaining() or 99) <= 1
            async with deadline.limit(5):
                assert (deadline.remaining() or 99) <= 1
        assert (deadline.remaining() or 0) > 5
    assert deadline.remaining() is None


async def test_code_that_takes_too_long_is_cancelled() -> None:
    with pytest.raises(DeadlineExceeded, match="the request's 20 ms are used up"):
        async with deadline.limit(0.02):
            await asyncio.sleep(10)


async def test_a_timeout_of_the_code_inside_stays_what_it_is() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with deadline.limit(10):
            raise TimeoutError("mine")
    assert not isinstance(caught.value, DeadlineExceeded)


async def test_a_command_carries_what_is_left_and_nothing_is_sent_after_that() -> None:
    command = {"find": "users"}
    deadline.stamp(command)
    assert command == {"find": "users"}
    async with deadline.limit(2):
        deadline.stamp(command)
        assert 1700 <= int(command["maxTimeMS"]) <= 1800
        own = {"find": "users", "maxTimeMS": 10}
        deadline.stamp(own)
        assert own["maxTimeMS"] == 10
    with pytest.raises(DeadlineExceeded):
        async with deadline.limit(0.01):
            time.sleep(0.01)  # noqa: ASYNC251 the event loop is what's late
            with pytest.raises(ExecutionTimeout, match="not sent"):
                deadline.stamp({"find": "users"})
            deadline.stamp({"abortTransaction": 1})
            await asyncio.sleep(1)


async def test_a_slow_query_ends_on_the_server_and_its_connection_lives_on(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=12)
    await with_one_document(sluice)
    await asyncio.gather(*(slow(sluice, 0.05) for _ in range(12)))
    created = total(sluice).pool.total_created

    async def limited() -> None:
        async with deadline.limit(3):
            await slow(sluice, 30)

    started = time.monotonic()
    results = await settle([asyncio.create_task(limited()) for _ in range(12)])
    assert {type(result) for result in results} == {ExecutionTimeout}
    assert time.monotonic() - started < 15
    await until(lambda: held(sluice) == 0)
    pool = total(sluice).pool
    assert (pool.total_created, pool.closed) == (created, {})
    assert connections_of(replica_set, sluice.app_name)[replica_set.primary()] >= 12


async def test_waiting_in_the_queue_draws_on_the_deadline(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_timeout=30)
    await with_one_document(sluice)
    holder = asyncio.create_task(slow(sluice, 1.5))
    await until(lambda: total(sluice).pool.active_connections == 1)
    with pytest.raises(QueueTimeout):
        async with deadline.limit(0.4):
            await sluice.collection("slow").find_one({})
    await settle([holder])


async def test_server_selection_draws_on_the_deadline(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(server_selection_timeout=20, max_pool_size=4)
    for address in replica_set.addresses:
        replica_set.kill(address)
    await until(lambda: not sluice.ready)

    async def ask() -> float:
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, PyMongoError)):
            async with deadline.limit(0.5):  # just when the driver's own wait wakes up, too
                await sluice.collection("x").find_one({})
        return time.monotonic() - started

    for _ in range(5):
        assert max(await asyncio.gather(*(ask() for _ in range(4)))) < 2
        await until(lambda: held(sluice) <= 1, 2)  # threads, too, give up: but for the one that looks for a primary
