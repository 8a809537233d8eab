"""What a worker knows at one instant, and how it is written to its slot.

Gauges (`Gauges`, the worker's own figures) describe now and end with the worker; counters (`Counters`,
`OperationStats`) describe the time since the slot was first used and are continued by its next owner.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, TypeAdapter

from sluice.pool.turnstile import Refusals
from sluice.statistics.histogram import Histogram

ANY_MEMBER = "*"
"""The member of a wait queue that stands before all members (Motor's)."""


@dataclass(slots=True)
class Counters:
    """Since the start, for one member's pool."""

    opened: int = 0
    failed: int = 0
    closed: dict[str, int] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    waits: Histogram = field(default_factory=Histogram)
    uses: Histogram = field(default_factory=Histogram)
    creations: Histogram = field(default_factory=Histogram)

    def add(self, other: Counters) -> None:
        self.opened += other.opened
        self.failed += other.failed
        for reason, count in other.closed.items():
            self.closed[reason] = self.closed.get(reason, 0) + count
        self.refusals.full += other.refusals.full
        self.refusals.timeout += other.refusals.timeout
        self.waits.add(other.waits)
        self.uses.add(other.uses)
        self.creations.add(other.creations)


@dataclass(slots=True, kw_only=True)
class Gauges:
    """Now, for one member's pool and the turnstile before it.

    `waiting` counts operations that have no connection yet, at the turnstile or while one is opened for them;
    `connecting` the connections that are being opened. `slots` and `held` are the turnstile's; a pool without one of
    its own has none. `eligible`: the default read preference may send operations here.
    """

    idle: int = 0
    used: int = 0
    connecting: int = 0
    waiting: int = 0
    oldest_wait: float = 0.0
    slots: int = 0
    held: int = 0
    free: int = 0
    queue_limit: int = 0
    paused: bool = False
    eligible: bool = False


@dataclass(slots=True)
class PoolSnapshot:
    """One member's pool in one worker; `gauges` is None once the pool is gone and only its past counts."""

    member: str
    gauges: Gauges | None
    counters: Counters


@dataclass(slots=True)
class OperationStats:
    """Since the start, for one kind of operation on one collection."""

    collection: str
    operation: str
    durations: Histogram = field(default_factory=Histogram)
    errors: dict[str, int] = field(default_factory=dict)


BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Upper bounds of the buckets that batches are counted in by their size; a larger one counts in one more."""


@dataclass(slots=True)
class CoalescerStats:
    """Reads or writes of one collection that travel in batches; `in_flight` and `waiting` are now, the rest since the
    start. `operations` less `batches` is what coalescing has saved."""

    kind: str
    collection: str
    in_flight: int = 0
    waiting: int = 0
    operations: int = 0
    batches: int = 0
    refused: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * (len(BATCH_SIZES) + 1))
    waits: Histogram = field(default_factory=Histogram)

    def count(self, size: int) -> None:
        """One batch of so many operations leaves."""
        self.batches += 1
        self.operations += size
        self.sizes[bisect_left(BATCH_SIZES, size)] += 1


@dataclass(slots=True)
class MemberStatus:
    """What a member reports of itself; None where the monitoring user may not ask or the member doesn't say."""

    member: str
    up: bool
    taken_at: float
    role: str | None = None
    connections_current: int | None = None
    connections_available: int | None = None
    connections_total_created: int | None = None
    lag: float | None = None
    operations: dict[str, int] = field(default_factory=dict)
    cache_used_bytes: int | None = None
    cache_max_bytes: int | None = None
    cache_dirty_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_size_bytes: int | None = None

    @property
    def connection_limit(self) -> int | None:
        """How many connections the member accepts, everybody's."""
        if self.connections_current is None or self.connections_available is None:
            return None
        return self.connections_current + self.connections_available


@dataclass(slots=True)
class PoolConfig:
    """The limits of each pool; times in milliseconds, as their settings have them."""

    max_pool_size: int
    min_pool_size: int
    max_idle_time_ms: int | None
    wait_queue_timeout_ms: int


@dataclass(slots=True, kw_only=True)
class WorkerSnapshot:
    """One worker. `taken_at` and `started_at` are Unix times, `starts` counts the owners that the slot has had."""

    slot: int
    pid: int
    host: str
    app_name: str
    driver: str
    started_at: float
    taken_at: float
    starts: int
    ready: bool
    loop_lag: float
    cpu_seconds: float
    memory_bytes: int
    pool_config: PoolConfig
    pools: list[PoolSnapshot]
    operations: list[OperationStats]
    coalescers: list[CoalescerStats]
    members: list[MemberStatus]
    alive: Annotated[bool, Field(exclude=True)] = True


_adapter = TypeAdapter(WorkerSnapshot)


def encode(snapshot: WorkerSnapshot) -> bytes:
    return _adapter.dump_json(snapshot)


def decode(data: bytes) -> WorkerSnapshot:
    """Raises `pydantic.ValidationError` for what another version wrote."""
    return _adapter.validate_json(data)
