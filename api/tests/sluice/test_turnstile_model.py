"""The turnstile against a plain list: whatever happens in whatever order, nobody is overtaken and no permit is lost."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sluice import QueueFull, QueueTimeout
from sluice.pool.turnstile import Turnstile

TIMEOUT = 10


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop whose time stands still unless it is moved, and that runs only when it is told to."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def step(self) -> None:
        self.call_soon(self.stop)
        self.run_forever()


class Evicted(Exception):
    pass


class Model:
    """What a turnstile is: a number of permits and a list of who waits, since when."""

    def __init__(self, permits: int, limit: int) -> None:
        self.permits, self.limit, self.room, self.now = permits, limit, True, 0.0
        self.waiting: list[int] = []
        self.since: dict[int, float] = {}
        self.inside: list[int] = []
        self.outcome: dict[int, type[BaseException] | None] = {}

    def enter(self, who: int) -> None:
        self.since[who] = self.now
        if len(self.waiting) >= self.limit and not self.would_enter():
            self.outcome[who] = QueueFull
        else:
            self.waiting.append(who)
            self.admit()

    def would_enter(self) -> bool:
        return not self.waiting and self.room and len(self.inside) < self.permits

    def admit(self) -> None:
        while self.waiting and self.room and len(self.inside) < self.permits:
            who = self.waiting.pop(0)
            self.inside.append(who)
            self.outcome[who] = None

    def cancel(self, who: int) -> None:
        (self.waiting if who in self.waiting else self.inside).remove(who)
        self.outcome[who] = asyncio.CancelledError
        self.admit()

    def leave(self) -> None:
        self.inside.pop(0)
        self.admit()

    def expire(self) -> None:
        for who in [who for who in self.waiting if self.since[who] + TIMEOUT <= self.now]:
            self.waiting.remove(who)
            self.outcome[who] = QueueTimeout

    def evict(self) -> None:
        self.outcome |= dict.fromkeys(self.waiting, Evicted)
        self.waiting.clear()


class TurnstileMachine(RuleBasedStateMachine):
    @initialize(permits=st.integers(1, 3), limit=st.integers(0, 5))
    def make(self, permits: int, limit: int) -> None:
        self.loop = Clockwork()
        self.model = Model(permits, limit)
        self.turnstile = Turnstile(
            "test", permits=permits, queue_limit=limit, timeout=TIMEOUT, has_room=lambda: self.model.room
        )
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.entered: list[int] = []
        self.still()

    async def _enter(self, who: int) -> None:
        await self.turnstile.enter()
        self.entered.append(who)

    def still(self) -> None:
        """Let everything happen that follows from what was done."""
        for _ in range(3 + 2 * len(self.model.outcome)):
            self.loop.step()

    def come(self) -> None:
        who = len(self.tasks)
        self.tasks[who] = self.loop.create_task(self._enter(who))
        self.model.enter(who)

    @rule(count=st.integers(1, 4))
    def enter(self, count: int) -> None:
        for _ in range(count):
            self.come()
        self.still()

    @rule(
        leave=st.integers(0, 3),
        cancel=st.sets(st.integers(0, 5), max_size=3),
        elapsed=st.sampled_from([0, 3, TIMEOUT]),
        enter=st.integers(0, 3),
    )
    def all_in_one_step(self, leave: int, cancel: set[int], elapsed: int, enter: int) -> None:
        """Who waited before may be let in, cancelled, and out of time, all before anyone of them can run."""
        waited = list(self.model.waiting)
        for _ in range(min(leave, len(self.model.inside))):
            if self.model.inside[0] in waited:
                break  # let in just now: it can't leave before it knows
            self.turnstile.leave()
            self.model.leave()
        for position in sorted(cancel):
            if position < len(waited):
                self.tasks[waited[position]].cancel()
                self.model.cancel(waited[position])
        self.loop.now += elapsed
        self.model.now += elapsed
        for _ in range(enter):
            self.come()
        self.model.expire()
        self.still()

    @precondition(lambda self: self.model.waiting)
    @rule()
    def evict(self) -> None:
        self.turnstile.evict(lambda: Evicted())
        self.model.evict()
        self.still()

    @rule(room=st.booleans(), newcomer=st.booleans())
    def room(self, room: bool, newcomer: bool) -> None:
        self.model.room = room
        if newcomer:  # before `admit` is called
            self.come()
            self.still()
        self.turnstile.admit()
        self.model.admit()
        self.still()

    @invariant()
    def everyone_is_where_the_list_says(self) -> None:
        model, turnstile = self.model, self.turnstile
        assert (turnstile.held, turnstile.waiting) == (len(model.inside), len(model.waiting))
        assert turnstile.held <= turnstile.permits
        assert turnstile.free == (0 if model.waiting else model.permits - len(model.inside))
        assert {who for who, task in self.tasks.items() if not task.done()} == set(model.waiting)
        assert {who: outcome_of(task) for who, task in self.tasks.items() if task.done()} == model.outcome
        assert self.entered == sorted(self.entered), "overtaken"
        assert turnstile.stats.refused_queue_full == list(model.outcome.values()).count(QueueFull)
        assert turnstile.stats.refused_queue_timeout == list(model.outcome.values()).count(QueueTimeout)

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.room(room=True, newcomer=False)
        while self.model.inside:
            self.turnstile.leave()
            self.model.leave()
            self.still()
        self.everyone_is_where_the_list_says()
        assert (self.turnstile.held, self.turnstile.waiting) == (0, 0)
        self.loop.close()


def outcome_of(task: asyncio.Task[Any]) -> type[BaseException] | None:
    if task.cancelled():
        return asyncio.CancelledError
    error = task.exception()
    return None if error is None else type(error)


TestTurnstile = TurnstileMachine.TestCase
TestTurnstile.settings = settings(max_examples=150, stateful_step_count=25, deadline=None, derandomize=True)
