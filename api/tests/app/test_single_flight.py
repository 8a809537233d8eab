"""A burst of callers costs one computation."""

from __future__ import annotations

import asyncio

import pytest

from app.observe.single_flight import SingleFlight

pytestmark = pytest.mark.asyncio


class Computation:
    def __init__(self) -> None:
        self.times = 0
        self.failing = False

    async def __call__(self) -> int:
        self.times += 1
        await asyncio.sleep(0.02)
        if self.failing:
            raise RuntimeError
        return self.times


async def test_a_burst_costs_one() -> None:
    compute = Computation()
    shared = SingleFlight(compute, 10)
    assert await asyncio.gather(*(shared.get() for _ in range(100))) == [1] * 100
    assert await shared.get() == 1


async def test_what_is_old_is_computed_anew() -> None:
    compute = Computation()
    shared = SingleFlight(compute, 0)
    await shared.get()
    assert await shared.get() == 2


async def test_a_caller_that_gives_up_takes_nobody_along() -> None:
    shared = SingleFlight(Computation(), 10)
    first, second = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == 1


async def test_a_failure_is_not_kept() -> None:
    compute = Computation()
    shared = SingleFlight(compute, 10)
    compute.failing = True
    with pytest.raises(RuntimeError):
        await shared.get()
    compute.failing = False
    assert await shared.get() == 2
