"""The turnstile alone: order, limits, and what giving up leaves behind."""

from __future__ import annotations

import asyncio

import pymongo
import pytest

from sluice import QueueFull, QueueTimeout, deadline
from sluice.pool.claims import Claim
from sluice.pool.turnstile import Turnstile
from tests.conftest import until


def make(permits: int = 2, queue_limit: int = 10, timeout: float = 10) -> Turnstile:
    return Turnstile("test", permits=permits, queue_limit=queue_limit, timeout=timeout)


async def fill(turnstile: Turnstile) -> None:
    for _ in range(turnstile.permits):
        await turnstile.enter()


async def test_waiters_enter_in_the_order_in_which_they_came() -> None:
    turnstile = make(permits=4)
    await fill(turnstile)
    entered: list[int] = []

    async def work(number: int) -> None:
        await turnstile.enter()
        entered.append(number)

    async with asyncio.TaskGroup() as tasks:
        for number in range(7):
            tasks.create_task(work(number))
        await until(lambda: turnstile.waiting == 7)
        assert repr(turnstile) == "<Turnstile test held=4/4 waiting=7/10>"
        for _ in range(7):
            turnstile.leave()
    assert entered == list(range(7))


async def test_a_newcomer_does_not_overtake_a_waiter_that_has_just_been_let_in() -> None:
    turnstile = make(permits=1)
    await fill(turnstile)
    waiter = asyncio.create_task(turnstile.enter())
    await until(lambda: turnstile.waiting == 1)
    turnstile.leave()  # the waiter hasn't run yet
    newcomer = asyncio.create_task(turnstile.enter())
    await waiter
    await asyncio.sleep(0)
    assert not newcomer.done()
    turnstile.leave()
    await newcomer


async def test_a_full_queue_refuses_at_once_and_counts_it() -> None:
    turnstile = make(permits=1, queue_limit=1)
    await fill(turnstile)
    waiter = asyncio.create_task(turnstile.enter())
    await until(lambda: turnstile.waiting == 1)
    with pytest.raises(QueueFull, match="test: 1 in use and 1 waiting"):
        await turnstile.enter()
    assert turnstile.stats.refused_queue_full == 1
    turnstile.leave()
    await waiter


async def test_a_full_queue_takes_in_what_has_begun_and_what_ends_something_in_turn() -> None:
    turnstile = make(permits=1, queue_limit=0, timeout=0.05)
    await fill(turnstile)
    begun = asyncio.create_task(turnstile.enter(Claim.BEGUN))
    finishing = asyncio.create_task(turnstile.enter(Claim.FINISHING))
    await until(lambda: turnstile.waiting == 2)
    with pytest.raises(QueueFull):
        await turnstile.enter()
    with pytest.raises(QueueTimeout):
        await begun
    assert not finishing.done()
    turnstile.leave()
    await finishing
    assert (turnstile.waiting, turnstile.held, turnstile.stats.refused_queue_timeout) == (0, 1, 1)


@pytest.mark.parametrize("claim", Claim)
async def test_the_drivers_own_timeout_holds_for_everybody(claim: Claim) -> None:
    turnstile = make(permits=1, timeout=30)
    await fill(turnstile)
    with pymongo.timeout(0.05), pytest.raises(QueueTimeout):
        await turnstile.enter(claim)


async def test_a_waiter_times_out_and_is_forgotten() -> None:
    turnstile = make(permits=1, timeout=0.05)
    await fill(turnstile)
    with pytest.raises(QueueTimeout, match="no connection came free"):
        await turnstile.enter()
    assert (turnstile.waiting, turnstile.held, turnstile.stats.refused_queue_timeout) == (0, 1, 1)


async def test_the_requests_deadline_shortens_the_wait_and_wins_over_its_cancellation() -> None:
    turnstile = make(permits=1, timeout=30)
    await fill(turnstile)
    with pytest.raises(QueueTimeout):
        async with deadline.limit(0.2):
            await turnstile.enter()


async def test_past_the_deadline_clean_up_may_still_wait_its_turn() -> None:
    turnstile = make(permits=1)
    await fill(turnstile)
    entered = False
    with pytest.raises(TimeoutError):
        async with deadline.limit(0.02):
            try:
                await asyncio.sleep(10)
            finally:
                asyncio.get_running_loop().call_later(0.02, turnstile.leave)
                await turnstile.enter()
                entered = True
    assert entered


async def test_a_thousand_waiters_cancelled_at_once_leave_every_count_right() -> None:
    turnstile = make(permits=3, queue_limit=1000)
    await fill(turnstile)
    waiters = [asyncio.create_task(turnstile.enter()) for _ in range(1000)]
    await until(lambda: turnstile.waiting == 1000)
    for waiter in waiters:
        waiter.cancel()
    turnstile.leave()  # while they are on their way out
    await asyncio.gather(*waiters, return_exceptions=True)
    assert (turnstile.waiting, turnstile.held, turnstile.free) == (0, 2, 1)


async def test_a_waiter_cancelled_in_the_step_that_lets_it_in_gives_its_permit_to_the_next() -> None:
    turnstile = make(permits=1)
    await fill(turnstile)
    first, second = (asyncio.create_task(turnstile.enter()) for _ in range(2))
    await until(lambda: turnstile.waiting == 2)
    turnstile.leave()
    first.cancel()
    await second
    assert first.cancelled()
    assert (turnstile.waiting, turnstile.held) == (0, 1)


async def test_evicted_waiters_get_an_error_each() -> None:
    turnstile = make(permits=1)
    await fill(turnstile)
    waiters = [asyncio.create_task(turnstile.enter()) for _ in range(3)]
    await until(lambda: turnstile.waiting == 3)
    turnstile.evict(lambda: ConnectionError("cleared"))
    errors = await asyncio.gather(*waiters, return_exceptions=True)
    assert [str(error) for error in errors] == ["cleared"] * 3
    assert len({id(error) for error in errors}) == 3
    assert (turnstile.waiting, turnstile.held) == (0, 1)


async def test_nobody_enters_without_room_until_admit_is_called() -> None:
    room = False
    turnstile = Turnstile("test", permits=2, queue_limit=5, timeout=10, has_room=lambda: room)
    waiter = asyncio.create_task(turnstile.enter())
    await until(lambda: turnstile.waiting == 1)
    assert turnstile.free == 0
    room = True
    turnstile.admit()
    await waiter
    assert turnstile.free == 1


async def test_the_oldest_waiter_has_an_age() -> None:
    turnstile = make(permits=1)
    assert turnstile.oldest_wait == 0
    await fill(turnstile)
    waiter = asyncio.create_task(turnstile.enter())
    await until(lambda: turnstile.oldest_wait > 0.01)
    turnstile.leave()
    await waiter
    assert turnstile.oldest_wait == 0
