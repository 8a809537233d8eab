"""A member that says it's overloaded is spared, and whoever asks hears of it in time; on both drivers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout, OperationFailure
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from sluice import DeadlineExceeded, Sluice, deadline
from sluice.drivers import overload
from sluice.pool.retry_budget import RetryBudget
from sluice.pool.turnstile import STEP, WIDENING, Turnstile
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import total
from tests.sluice.test_finishing import open_transactions

LABELS = ["SystemOverloadedError", "RetryableError", "NoWritesPerformed"]
REFUSED = 462  # IngressRequestRateLimitExceeded


@contextmanager
def overloaded(replica_set: ReplicaSet, commands: list[str], mode: Any = "alwaysOn") -> Iterator[None]:
    """The primary refuses these commands meanwhile: always, so often, or with some probability."""
    data = {"failCommands": commands, "errorCode": REFUSED, "errorLabels": LABELS}
    with replica_set.direct(replica_set.primary()) as client:
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


class Sent(CommandListener):
    """How many commands were sent."""

    def __init__(self) -> None:
        self.number = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.number += 1

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing is counted then."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nor then."""


async def ask(sluice: Sluice, kind: str) -> bool:
    """Whether it was done."""
    try:
        if kind == "find":
            await sluice.collection("docs").find_one({"_id": 1})
        else:
            await sluice.collection("docs").insert_one({})
    except OperationFailure as error:
        if not error.has_error_label("SystemOverloadedError"):
            raise
        return False
    return True


@pytest.mark.parametrize("kind", ["find", "insert"])
async def test_little_is_repeated_of_what_is_refused(
    open_sluice: OpenSluice, replica_set: ReplicaSet, kind: str
) -> None:
    sent, requests = Sent(), 1_000
    sluice = await open_sluice(max_pool_size=20, client={"event_listeners": [sent]})
    with overloaded(replica_set, [kind], {"activationProbability": 0.3}):
        before = sent.number

        async def caller() -> list[bool]:
            return [await ask(sluice, kind) for _ in range(requests // 20)]

        done = [each for some in await asyncio.gather(*(caller() for _ in range(20))) for each in some]
        commands = sent.number - before
    assert requests < commands <= 1.1 * requests + 1
    assert 0.7 < sum(done) / requests < 0.9  # seven of ten at once, and some of the rest by a repetition
    refused = commands - sum(done)
    assert total(sluice).pool.overloaded == refused


@pytest.mark.parametrize("ending", ["commitTransaction", "abortTransaction"])
async def test_what_ends_a_transaction_is_repeated_without_a_budget(
    open_sluice: OpenSluice, replica_set: ReplicaSet, ending: str
) -> None:
    """Left open, it would hold its locks, and burden the member more. Oftener than the driver does by itself."""
    sluice = await open_sluice()
    await sluice.database.command("create", "docs")

    async def work(session: Any) -> None:
        await sluice.collection("docs").insert_one({"_id": 1}, session=session)
        if ending == "abortTransaction":
            raise ValueError("undo it")

    with overloaded(replica_set, [ending], {"times": 4}):
        async with deadline.limit(20):
            with suppress(ValueError):
                await sluice.with_transaction(work)
        assert open_transactions(replica_set) == 0
    assert await sluice.collection("docs").count_documents({}) == (ending == "commitTransaction")


async def test_nothing_refused_is_repeated_once_the_time_is_up(open_sluice: OpenSluice) -> None:
    class Eager:
        def backoff(self, attempt: int, base_backoff: float | None = None) -> float:
            return 0.0

        def should_retry(self, attempt: int, delay: float) -> bool:
            return True

    budget = RetryBudget(share=5)
    budget.earn()
    with suppress(DeadlineExceeded):
        async with deadline.limit(0.01):
            assert overload.policy(Eager(), "find", budget).should_retry(1, 0.0)
            while (deadline.remaining() or 0) > 0:
                pass
            assert not overload.policy(Eager(), "find", budget).should_retry(1, 0.0)
            assert overload.policy(Eager(), "commitTransaction", budget).should_retry(1, 0.0)


@pytest.mark.parametrize("kind", ["find", "insert"])
async def test_no_repetition_outlives_the_request(open_sluice: OpenSluice, replica_set: ReplicaSet, kind: str) -> None:
    sluice = await open_sluice()
    for _ in range(100):  # earns the budget
        assert await ask(sluice, "find")
    with overloaded(replica_set, [kind]):
        for _ in range(10):
            started = time.monotonic()
            with suppress(DeadlineExceeded, ExecutionTimeout):  # a pause that took longer than it was to
                async with deadline.limit(0.05):
                    assert not await ask(sluice, kind)
            assert time.monotonic() - started < 0.3


async def test_a_member_that_is_overloaded_gets_half_and_then_more_again(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=40)
    await ask(sluice, "find")

    def given() -> int:
        return total(sluice).pool.permits_given

    assert given() == 40
    with overloaded(replica_set, ["find"], {"times": 1}):
        await ask(sluice, "find")
    await until(lambda: given() < 40)
    assert given() >= 20
    since = time.monotonic()
    await until(lambda: given() == 40)
    assert time.monotonic() - since < 2


async def test_the_turnstile_narrows_by_halves_and_widens_by_steps() -> None:
    turnstile = Turnstile("test", permits=16, queue_limit=10, timeout=10)
    for _ in range(16):
        turnstile.narrow()  # all of one moment
    assert (turnstile.admitting, turnstile.free) == (8, 8)
    for _ in range(8):
        await turnstile.enter()
    waiter = asyncio.create_task(turnstile.enter())
    await until(lambda: turnstile.waiting == 1)
    turnstile.leave()
    await waiter  # what is held counts, as ever
    waiters = [asyncio.create_task(turnstile.enter()) for _ in range(8)]
    started = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*waiters), 2)  # nobody left: more were admitted by and by
    assert time.monotonic() - started > 2 * STEP
    assert turnstile.admitting == turnstile.permits == 16


async def test_it_never_closes_and_is_wide_again_in_time() -> None:
    turnstile = Turnstile("test", permits=100, queue_limit=10, timeout=10)
    while turnstile.admitting > 1:
        turnstile._narrowed = 0
        turnstile.narrow()
    turnstile._narrowed = 0
    turnstile.narrow()
    assert turnstile.admitting == 1
    started = time.monotonic()
    await until(lambda: turnstile.admitting == 100)
    assert WIDENING - 2 * STEP < time.monotonic() - started < 2


def test_the_budget_is_a_share_and_can_be_saved_up() -> None:
    budget = RetryBudget(share=0.5, most=2)
    assert not budget.take()
    for _ in range(2):
        budget.earn()
    assert [budget.take(), budget.take()] == [True, False]
    for _ in range(100):
        budget.earn()
    assert [budget.take() for _ in range(3)] == [True, True, False]
