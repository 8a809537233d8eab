"""The FIFO turnstile: first come, first served, before a pool whose own queue lets newcomers overtake.

A release hands the permit to the longest waiter before anyone else can run, so nobody is overtaken; whoever waits has
no connection, so giving up costs none.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable

from sluice import deadline
from sluice.errors import QueueFull, QueueTimeout
from sluice.pool.claims import Claim
from sluice.statistics.snapshot import PoolStats

WIDENING = 1.5
"""Seconds from one permit to all of them."""
STEP = 0.1
"""Seconds between two steps."""


class Turnstile:
    """At most `permits` operations inside, at most `queue_limit` waiting, each for at most `timeout` seconds.

    `has_room` may hold back the next one although a permit is free (a connection must be opened first); whoever changes
    its answer calls `admit()`. All methods belong to one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        permits: int,
        queue_limit: int,
        timeout: float,
        stats: PoolStats | None = None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.permits = permits
        self.admitting = permits
        """As many as are admitted now: fewer for a while after `narrow`."""
        self.queue_limit = queue_limit
        self.timeout = timeout
        self.stats = stats or PoolStats()
        self.held = 0
        self._has_room = has_room
        self._waiters: OrderedDict[asyncio.Future[None], float] = OrderedDict()
        self._narrowed = -math.inf
        self._widening: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Turnstile {self.name} held={self.held}/{self.permits} waiting={self.waiting}/{self.queue_limit}>"

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def oldest_wait(self) -> float:
        """Seconds that the longest waiter has waited so far; 0 when nobody waits."""
        if not self._waiters:
            return 0.0
        return asyncio.get_running_loop().time() - next(iter(self._waiters.values()))

    @property
    def free(self) -> int:
        """How many more could enter now without waiting."""
        return 0 if self._waiters else max(0, self.admitting - self.held)

    def enter_at_once(self) -> bool:
        """Take a permit if that needs no waiting; whether it did. As after `enter`, one `leave` follows."""
        if self._waiters or not self._open():
            return False
        self.held += 1
        return True

    async def enter(self, claim: Claim = Claim.ORDINARY) -> None:
        """Take a permit, in turn. Every successful `enter` is followed by one `leave`.

        Raises `QueueFull` at once when the queue is at its limit, `QueueTimeout` when the wait is over (both as the
        claim has it; a timeout of the driver's own always counts), and whatever `evict` was given.
        """
        if self.enter_at_once():
            return
        if len(self._waiters) >= self.queue_limit and claim is Claim.ORDINARY:
            self.stats.refused_queue_full += 1
            raise QueueFull(f"{self.name}: {self.held} in use and {self.queue_limit} waiting")
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiters[turn] = loop.time()
        longest = deadline.driver_timeout() if claim is Claim.FINISHING else deadline.allowance(self.timeout)
        timer = None if longest is None else loop.call_later(longest, self._expire, turn)
        try:
            if claim is Claim.FINISHING:
                await turn
            else:
                with deadline.waiting(turn):
                    await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # the turn came in the very step in which the waiter was cancelled
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.pop(turn, None)

    def leave(self) -> None:
        """Give the permit back, to the longest waiter if there is one."""
        self.held -= 1
        self.admit()

    def admit(self) -> None:
        """Let in whoever can enter now, longest waiter first."""
        while self._waiters and self._open():
            turn, _ = self._waiters.popitem(last=False)
            if not turn.done():
                self.held += 1
                turn.set_result(None)

    def narrow(self) -> None:
        """Admit half as many, and then more with each step, until they are all again: what is behind is overloaded.

        Once per step, since what is under way would only say the same again.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._narrowed + STEP:
            return
        self._narrowed = loop.time()
        self.admitting = max(1, self.admitting // 2)
        if self._widening is None:
            self._widening = loop.call_later(STEP, self._widen)

    def _widen(self) -> None:
        self.admitting = min(self.permits, self.admitting + math.ceil(self.permits * STEP / WIDENING))
        more = self.admitting < self.permits
        self._widening = asyncio.get_running_loop().call_later(STEP, self._widen) if more else None
        self.admit()

    def evict(self, reason: Callable[[], Exception]) -> None:
        """Send every waiter away with an error of its own."""
        for turn in self._waiters:
            if not turn.done():
                turn.set_exception(reason())
        self._waiters.clear()

    def _open(self) -> bool:
        return self.held < self.admitting and self._has_room()

    def _expire(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self.stats.refused_queue_timeout += 1
            waited = asyncio.get_running_loop().time() - self._waiters[turn]
            turn.set_exception(QueueTimeout(f"{self.name}: no connection came free in {waited * 1000:.0f} ms"))
