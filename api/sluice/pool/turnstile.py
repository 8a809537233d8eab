"""The FIFO turnstile: first come, first served, before a pool whose own queue lets newcomers overtake.

A release hands the permit to the longest waiter before anyone else can run, so nobody is overtaken; whoever waits has
no connection, so giving up costs none.

Where callers go as their turn comes, the queue is as long as their patience, and whoever is next is about to go, too:
all that is done is done for nobody. Then the newest is next until nobody goes any more (adaptive LIFO, as in
https://queue.acm.org/detail.cfm?id=2839461, by what callers do instead of by time); but first who has waited for longer
than any of those who went would have.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable

from sluice import deadline
from sluice.errors import Abandoned, QueueFull, QueueTimeout
from sluice.pool.claims import Claim
from sluice.statistics.snapshot import PoolStats

WIDENING = 1.5
"""Seconds from one permit to all of them."""
STEP = 0.1
"""Seconds between two steps."""
GONE = 3
"""So many callers must have gone as their turn came, until the newest is next."""
AS_ITS_TURN_CAME = 0.9
"""Of the time that the last one had waited who was let in."""
PATIENT = 1.25
"""Times as long as any of those who went: that one has gone is known a little later than it goes."""
REMEMBERED = 1.0
"""Seconds after which it's forgotten that one has gone."""


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
        self._begun: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        """Those of them who belong to something that has begun, which the newest doesn't overtake."""
        self._let_in_after = 0.0
        """Seconds that the last one who was let in had waited."""
        self._gone = 0
        self._gone_at = -math.inf
        self._patience = 0.0
        """Seconds that one of those who have gone had waited at most."""
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
        if claim is not Claim.ORDINARY:
            self._begun[turn] = None
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
        except Abandoned:
            self._has_gone(turn)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._forget(turn)

    def leave(self) -> None:
        """Give the permit back, to whoever is next."""
        self.held -= 1
        self.admit()

    def admit(self) -> None:
        """Let in whoever can enter now, longest waiter first, or the newest while callers go."""
        while self._waiters and self._open():
            turn = self._next()
            since = self._waiters[turn]
            self._forget(turn)
            if not turn.done():
                self._let_in_after = turn.get_loop().time() - since
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
        self._begun.clear()

    def _next(self) -> asyncio.Future[None]:
        oldest, since = next(iter(self._waiters.items()))
        if self._gone < GONE:
            return oldest
        now = oldest.get_loop().time()
        if now > self._gone_at + REMEMBERED or now - since > PATIENT * self._patience:
            return oldest
        return next(iter(self._begun)) if self._begun else next(reversed(self._waiters))

    def _has_gone(self, turn: asyncio.Future[None]) -> None:
        """Its caller. That somebody goes who has just come says nothing of the queue."""
        self.stats.abandoned += 1
        now = asyncio.get_running_loop().time()
        waited = now - self._waiters.get(turn, now)
        if waited >= AS_ITS_TURN_CAME * self._let_in_after:
            forgotten = now > self._gone_at + REMEMBERED
            self._gone = 1 if forgotten else self._gone + 1
            self._patience = waited if forgotten else max(waited, self._patience)
            self._gone_at = now

    def _forget(self, turn: asyncio.Future[None]) -> None:
        self._waiters.pop(turn, None)
        self._begun.pop(turn, None)

    def _open(self) -> bool:
        return self.held < self.admitting and self._has_room()

    def _expire(self, turn: asyncio.Future[None]) -> None:
        if not turn.done():
            self.stats.refused_queue_timeout += 1
            waited = asyncio.get_running_loop().time() - self._waiters[turn]
            turn.set_exception(QueueTimeout(f"{self.name}: no connection came free in {waited * 1000:.0f} ms"))
