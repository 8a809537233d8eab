"""Callers who go while they wait: whoever is let in then is one who will still be there for the answer."""

from __future__ import annotations

import asyncio

import pytest

from sluice import Abandoned, deadline
from sluice.pool.claims import Claim
from sluice.pool.turnstile import GONE, REMEMBERED, Turnstile
from tests.sluice.test_turnstile_model import Clockwork

PATIENCE = 1.0


class Queue:
    """A turnstile with one permit, which somebody has; callers have names, and time is moved by hand."""

    def __init__(self) -> None:
        self.loop = Clockwork()
        self.turnstile = Turnstile("test", permits=1, queue_limit=100, timeout=60)
        self.limits: dict[str, deadline.limit] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.let_in: list[str] = []
        self.come("first")

    def come(self, *names: str, claim: Claim = Claim.ORDINARY) -> None:
        for name in names:
            self.limits[name] = deadline.limit(60)
            self.tasks[name] = self.loop.create_task(self._enter(name, claim))
        self.still()

    async def _enter(self, name: str, claim: Claim) -> None:
        async with self.limits[name]:
            await self.turnstile.enter(claim)
        self.let_in.append(name)

    def go(self, *names: str) -> None:
        for name in names:
            self.limits[name].abandon(reads=False)
        self.still()
        for name in names:
            assert isinstance(self.tasks.pop(name).exception(), Abandoned)

    def pass_on(self) -> str:
        """Whoever is inside leaves; who comes in."""
        self.turnstile.leave()
        self.still()
        return self.let_in[-1]

    def wait(self, seconds: float) -> None:
        self.loop.now += seconds
        self.still()

    def still(self) -> None:
        for _ in range(10):
            self.loop.step()

    def fill(self) -> None:
        """The queue becomes as long as callers are patient: `GONE` of them go as their turn comes."""
        going = [f"going {number}" for number in range(GONE)]
        self.come("let in late", *going)
        self.wait(PATIENCE)
        assert self.pass_on() == "let in late"
        self.go(*going)


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_the_newest_is_next_while_callers_go_as_their_turn_comes(queue: Queue) -> None:
    queue.fill()
    queue.come("older", "old", "new")
    assert [queue.pass_on() for _ in range(3)] == ["new", "old", "older"]
    assert queue.turnstile.stats.abandoned == GONE


def test_whoever_waits_is_next_again_once_nobody_goes(queue: Queue) -> None:
    queue.fill()
    queue.come("older", "old", "new")
    queue.wait(REMEMBERED + 0.1)
    assert [queue.pass_on() for _ in range(3)] == ["older", "old", "new"]


def test_who_goes_early_changes_nothing(queue: Queue) -> None:
    """That they go has nothing to do with how long others wait."""
    queue.come("late")
    queue.wait(PATIENCE)
    queue.pass_on()
    queue.come(*(f"{number}" for number in range(GONE + 1)), "older", "new")
    queue.wait(PATIENCE / 2)
    queue.go(*(f"{number}" for number in range(GONE + 1)))
    assert [queue.pass_on(), queue.pass_on()] == ["older", "new"]


def test_fewer_change_nothing(queue: Queue) -> None:
    queue.come("late", *(f"{number}" for number in range(GONE - 1)), "older", "new")
    queue.wait(PATIENCE)
    queue.pass_on()
    queue.go(*(f"{number}" for number in range(GONE - 1)))
    assert [queue.pass_on(), queue.pass_on()] == ["older", "new"]


def test_who_has_more_patience_than_those_who_went_comes_before_the_newest(queue: Queue) -> None:
    queue.come("patient")
    queue.turnstile.held += 1  # nobody is let in meanwhile
    queue.wait(0.5)
    queue.come("late", *(f"{number}" for number in range(GONE)))
    queue.wait(PATIENCE)
    queue.go(*(f"{number}" for number in range(GONE)))
    queue.turnstile.held -= 1
    queue.come("new")
    assert [queue.pass_on() for _ in range(3)] == ["patient", "new", "late"]


def test_what_has_begun_comes_before_the_newest(queue: Queue) -> None:
    queue.fill()
    queue.come("old")
    queue.come("commit", claim=Claim.BEGUN)
    queue.come("new")
    assert [queue.pass_on() for _ in range(3)] == ["commit", "new", "old"]


def test_who_is_cancelled_says_nothing_of_the_queue(queue: Queue) -> None:
    """By a timeout of its own, say: as fair as ever."""
    queue.come("late", *(f"{number}" for number in range(GONE + 1)), "older", "new")
    queue.wait(PATIENCE)
    queue.pass_on()
    for number in range(GONE + 1):
        queue.tasks.pop(f"{number}").cancel()
    queue.still()
    assert [queue.pass_on(), queue.pass_on()] == ["older", "new"]
