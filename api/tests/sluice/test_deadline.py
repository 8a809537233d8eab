"""A request's time: everything draws on it, and a timeout costs no connection."""

from __future__ import annotations

import asyncio
import time

import pytest
from pymongo.errors import ExecutionTimeout, PyMongoError

from sluice import DeadlineExceeded, QueueTimeout, deadline
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
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


async def test_each_limit_ends_at_its_own_time() -> None:
    lengths = [0.3, 0.05, 10, 0.2, 0.1, 0.05] * 20
    started = time.monotonic()

    async def limited(seconds: float) -> float:
        with pytest.raises(DeadlineExceeded):
            async with deadline.limit(seconds):
                await asyncio.sleep(0.5 if seconds > 1 else 10)
                raise DeadlineExceeded("not reached by the limit")
        return time.monotonic() - started

    taken = await asyncio.gather(*map(limited, lengths))
    assert all(seconds <= end for seconds, end in zip(lengths, taken, strict=True) if seconds < 1)
    ends = {
        seconds: max(end for each, end in zip(lengths, taken, strict=True) if each == seconds) for seconds in lengths
    }
    assert sorted(ends, key=ends.__getitem__) == [0.05, 0.1, 0.2, 0.3, 10]  # the last ended by itself


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def limited() -> None:
        async with deadline.limit(0.02):
            try:
                await asyncio.sleep(10)
            finally:
                cancelled_twice.set()
                await asyncio.sleep(10)

    cancelled_twice = asyncio.Event()
    task = asyncio.create_task(limited())
    await cancelled_twice.wait()  # the limit is over; while it unwinds, somebody else cancels, too
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_limits_that_are_over_are_forgotten() -> None:
    for _ in range(5_000):
        async with deadline.limit(60):
            pass
    assert len(deadline._alarm()._limits) <= 1_001


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
    while total(sluice).pool.total_created < 12:
        await asyncio.gather(*(slow(sluice, 0.1) for _ in range(12)))
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


async def test_callers_cancelled_while_a_member_is_selected_leave_the_client_usable(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(server_selection_timeout=20, max_pool_size=4, wait_queue_multiple=100)
    for address in replica_set.addresses:
        replica_set.kill(address)
    await until(lambda: not sluice.ready)
    loop = asyncio.get_running_loop()
    callers = [asyncio.ensure_future(sluice.collection("x").find_one({})) for _ in range(300)]
    for number, caller in enumerate(callers):  # when the driver's wait of 0.5 s wakes up, and after
        loop.call_later(0.499 + number / 10_000, caller.cancel)
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    for address in replica_set.addresses:
        replica_set.start_member(address)
    await until(lambda: sluice.ready, 30)
    await sluice.collection("x").find_one({})


async def test_a_limit_that_is_lifted_limits_nothing_more() -> None:
    limit = deadline.limit(0.02)
    async with limit:
        running = asyncio.create_task(asyncio.sleep(0.05, "told"))
        assert deadline.remaining() is not None
        await asyncio.create_task(lift(limit))  # in a task of its own, as a stream's answer is sent
        assert deadline.remaining() is None
        assert deadline.allowance(7) == 7
        command: dict[str, object] = {"find": "users"}
        deadline.stamp(command)
        assert command == {"find": "users"}
        async with deadline.limit(5):
            assert deadline.remaining() == pytest.approx(5, abs=0.1)
        assert await running == "told"


async def lift(limit: deadline.limit) -> None:
    limit.lift()


async def test_what_is_lifted_within_another_limit_keeps_that_one() -> None:
    async with deadline.limit(10):
        inner = deadline.limit(5)
        async with inner:
            inner.lift()
            left = deadline.remaining()
            assert left is not None
            assert 5 < left <= 10
