"""Batches: what arrives while others are in flight leaves together, as soon as a lane is free.

A batch never waits for company. Nothing is answered from a batch that had left before it arrived, so a read that
starts after a write was acknowledged sees it.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sluice import deadline, timings
from sluice.errors import Abandoned, PoolUnavailable, QueueFull
from sluice.statistics.snapshot import CoalescerStats

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`lanes`: operations in flight at once, not counting those that take longer than `patience` seconds, so that a
    member that hangs doesn't hold up what another connection could do. `batch`: items in one operation, `batch_bytes`:
    their encoded size. `waiting`: items that may wait for a lane before the next is refused."""

    lanes: int = 2
    patience: float = 0.1
    batch: int = 500
    batch_bytes: int = 4 << 20
    waiting: int = 5_000

    def __post_init__(self) -> None:
        """Raises `ValueError` for a limit that would let nothing leave."""
        for name, least in (("lanes", 1), ("batch", 1), ("batch_bytes", 1), ("waiting", 0)):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(f"limit {name}={number!r}: allowed is a whole number, {least} or more")
        if not isinstance(self.patience, int | float) or not 0 <= self.patience < math.inf:
            raise ValueError(f"limit patience={self.patience!r}: allowed is 0 or more, in seconds")


@dataclass(slots=True, eq=False)
class Entry(Generic[Item, Result]):
    """One caller's item on its way, and what will become of it."""

    item: Item
    size: int
    until: float | None
    arrived: float
    future: asyncio.Future[Result]
    asker: deadline.Asker | None
    left: float = 0.0
    journey: Journey | None = None


class Journey:
    """A batch that has left."""

    __slots__ = ("passengers", "task")

    def __init__(self, task: asyncio.Task[None], passengers: int) -> None:
        self.task = task
        self.passengers = passengers

    def one_has_gone(self) -> None:
        """A read that nobody waits for any more ends, unless it does so in a moment."""
        self.passengers -= 1
        if not self.passengers:
            asyncio.get_running_loop().call_later(deadline.LET_FINISH, self.task.cancel)


class Lane:
    """One operation's place among those in flight."""

    __slots__ = ("counts", "timer")

    def __init__(self) -> None:
        self.counts = True
        self.timer: asyncio.TimerHandle | None = None


Run = Callable[[Sequence[Entry[Item, Result]]], Awaitable[None]]


class Coalescer(Generic[Item, Result]):
    """Sends what waits in batches of one task each; belongs to one event loop.

    `run` gets a batch and settles its entries' futures; whatever it raises goes to those that it left unsettled.
    Several may share `stats`, which then has their sums.
    """

    def __init__(self, stats: CoalescerStats, limits: Limits, run: Run[Item, Result]) -> None:
        self.stats = stats
        self.limits = limits
        self._run = run
        self._in_flight = 0
        self._waiting: OrderedDict[Entry[Item, Result], None] = OrderedDict()
        self._batches: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take_lane(self) -> Lane | None:
        """Take a lane for an operation of one's own, if nobody waits for one. `leave_lane` gives it back."""
        if self._waiting or self._in_flight >= self.limits.lanes or self._closed:
            return None
        return self._enter_lane(1)

    def leave_lane(self, lane: Lane) -> None:
        self.stats.in_flight -= 1
        if lane.timer is not None:
            lane.timer.cancel()
        self._free(lane)

    async def join(self, item: Item, size: int) -> Result:
        """Wait for a batch and for what becomes of the item in it.

        Raises `QueueFull` when too many wait, `PoolUnavailable` once closed, and what became of the item.
        """
        if self._closed:
            raise PoolUnavailable("the MongoDB client is closed")
        if len(self._waiting) >= self.limits.waiting:
            self.stats.refused += 1
            raise QueueFull(f"{self.stats.collection}: {self.limits.waiting} operations wait for a batch")
        left = deadline.remaining()
        now = time.monotonic()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        entry = Entry(item, size, None if left is None else now + left, now, future, deadline.asker())
        self._waiting[entry] = None
        self.stats.waiting += 1
        if self._in_flight < self.limits.lanes:
            self._depart()
        try:
            with deadline.waiting(future):
                result = await future
        except (asyncio.CancelledError, Abandoned):
            if entry.journey is not None:
                entry.journey.one_has_gone()
            raise
        finally:
            if entry in self._waiting:  # cancelled before it left
                self._forget(entry)
        request = timings.current()
        if request is not None:
            request.queue_wait += entry.left - now
        return result

    async def close(self) -> None:
        """Send away whoever waits, and wait for the batches that have left."""
        self._closed = True
        for entry in list(self._waiting):
            self._forget(entry)
            if not entry.future.done():
                entry.future.set_exception(PoolUnavailable("the MongoDB client was closed"))
        if self._batches:
            await asyncio.wait(self._batches)

    def _depart(self) -> None:
        """Send batches while there are lanes and callers that still want an answer."""
        while self._in_flight < self.limits.lanes:
            batch = self._next_batch()
            if not batch:
                return
            lane = self._enter_lane(len(batch))
            # A context of its own: no caller's deadline, cancellation or timings reach the others through it.
            task = asyncio.create_task(self._travel(batch, lane), context=contextvars.Context())
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
            if self.stats.kind == "read":
                journey = Journey(task, len(batch))
                for entry in batch:
                    entry.journey = journey

    def _enter_lane(self, size: int) -> Lane:
        lane = Lane()
        lane.timer = asyncio.get_running_loop().call_later(self.limits.patience, self._free, lane)
        self._in_flight += 1
        self.stats.in_flight += 1
        self.stats.count(size)
        return lane

    def _free(self, lane: Lane) -> None:
        if lane.counts:
            lane.counts = False
            self._in_flight -= 1
            if self._waiting:
                self._depart()

    def _forget(self, entry: Entry[Item, Result]) -> None:
        del self._waiting[entry]
        self.stats.waiting -= 1

    def _next_batch(self) -> list[Entry[Item, Result]]:
        batch: list[Entry[Item, Result]] = []
        size = 0
        while self._waiting and len(batch) < self.limits.batch:
            entry = next(iter(self._waiting))
            if batch and size + entry.size > self.limits.batch_bytes:
                break
            self._forget(entry)
            if not entry.future.done():  # else cancelled in this very step
                batch.append(entry)
                size += entry.size
                if entry.asker is not None and self.stats.kind == "write":
                    entry.asker.wrote = True
        return batch

    async def _travel(self, batch: list[Entry[Item, Result]], lane: Lane) -> None:
        now = time.monotonic()
        for entry in batch:
            entry.left = now
            self.stats.wait_time.observe(now - entry.arrived)
        try:
            untils = [entry.until for entry in batch]
            latest = None if None in untils else max(until for until in untils if until is not None)
            if latest is None:
                await self._run(batch)
            else:  # each caller keeps its own; together they need no more than the latest
                async with deadline.limit(max(0.001, latest - now)):
                    await self._run(batch)
        except BaseException as error:
            fail_all(batch, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.leave_lane(lane)


def fail_all(batch: Sequence[Entry[Item, Result]], error: BaseException) -> None:
    """Tell the error to everyone in the batch who has no outcome yet."""
    for entry in batch:
        if not entry.future.done():
            entry.future.set_exception(_own(error))


def _own(error: BaseException) -> BaseException:
    """Each caller raises an exception of its own, so that tracebacks don't grow into each other."""
    try:
        twin = copy.copy(error)
    except Exception:  # one that can't be made again from its arguments
        return error
    twin.__cause__ = error
    return twin
