"""Every statistic, declared once (see `sluice.statistics.figures`), and what a worker knows at one instant.

Gauges describe now and end with the worker; counters and histograms describe the time since the slot was first used
and are continued by its next owner. The order of the fields is that of `/connection-stats`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from sluice.statistics.figures import added, counter, counters, figures_of, gauge, histogram, label, state
from sluice.statistics.histogram import Histogram

ANY_MEMBER = "*"
"""The member of a wait queue that stands before all members (Motor's)."""

BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Upper bounds of the buckets that batches are counted in by their size; a larger one counts in one more."""

Coalesced = Literal["read", "write"]
MemberState = Literal[
    "primary", "secondary", "arbiter", "recovering", "rollback", "startup", "startup2", "removed", "down", "unknown"
]
"""https://www.mongodb.com/docs/manual/reference/replica-states/"""
_OPEN = "Open connections, by state: idle or used."


@dataclass(slots=True, kw_only=True)
class PoolStats:
    """One member's pool and the turnstile before it, or several added up."""

    current_connections: int = gauge("Open connections: active and idle ones.", derived=True)
    available_connections: int = gauge(
        "Operations that could start now without waiting.", "db_client_connection_available", total="sum of eligible"
    )
    total_created: int = counter("Connections opened.", "db_client_connection_created_total")
    active_connections: int = gauge(
        "Connections that are checked out.", "db_client_connection_count", labels={"state": "used"}, metric_help=_OPEN
    )
    idle_connections: int = gauge(
        "Connections that are open and free.", "db_client_connection_count", labels={"state": "idle"}, metric_help=_OPEN
    )
    connecting: int = gauge("Connections that are being opened.", "db_client_connection_connecting")
    waiting: int = gauge("Operations that wait for a connection.", "db_client_connection_pending_requests")
    oldest_waiter_seconds: float = gauge(
        "How long the longest waiter has waited.",
        "db_client_connection_oldest_wait_seconds",
        unit="seconds",
        total="max",
        default=0.0,
    )
    wait_queue_limit: int = gauge("Operations that may wait; the next is refused.", "db_client_connection_queue_limit")
    utilization: float = gauge("Share of the permits that operations hold, 0 to 1.", default=0.0, derived=True)
    paused_pools: int = gauge(
        "Pools that the driver has paused, since their member can't be reached.", "db_client_connection_paused"
    )
    refused_queue_full: int = counter("Operations refused at a full queue.", "db_client_connection_refused_total")
    refused_queue_timeout: int = counter(
        "Operations that timed out waiting for a connection.", "db_client_connection_timeouts_total"
    )
    abandoned: int = counter(
        "Operations whose caller had gone before they had a connection.", "db_client_connection_abandoned_total"
    )
    overloaded: int = counter(
        "Operations that the member refused since it's overloaded.", "db_client_connection_overloaded_total"
    )
    failed_to_open: int = counter("Connections that could not be opened.", "db_client_connection_create_failures_total")
    closed: dict[str, int] = counters(
        "Connections closed, by reason.", "db_client_connection_closed_total", by="reason"
    )
    wait_time: Histogram = histogram(
        "Time to get a connection from the pool.", "db_client_connection_wait_time_seconds"
    )
    use_time: Histogram = histogram("Time that a connection was checked out.", "db_client_connection_use_time_seconds")
    create_time: Histogram = histogram("Time to open a connection.", "db_client_connection_create_time_seconds")
    permits: int = gauge(
        "Permits of the turnstile: operations that it admits at once.",
        "db_client_connection_slots",
        total="sum of eligible",
        in_json=False,
    )
    permits_given: int = gauge(
        "Permits that may be held now: fewer after the member said that it's overloaded.",
        "db_client_connection_slots_given",
        total="sum of eligible",
        in_json=False,
    )
    permits_held: int = gauge(
        "Permits that operations hold.",
        "db_client_connection_slots_held",
        total="sum of eligible",
        in_json=False,
    )
    eligible: bool = False
    """The default read preference may send operations here."""

    def __post_init__(self) -> None:
        self.current_connections = self.active_connections + self.idle_connections
        self.utilization = self.permits_held / self.permits if self.permits else 0.0


@dataclass(slots=True, kw_only=True)
class PoolSnapshot:
    """One member's pool in one worker; `exists` is False once the pool is gone and only its past counts."""

    member: str = label("Its address, `*` for the one wait queue that Motor has for all members.", "server_address")
    exists: bool
    stats: PoolStats


@dataclass(slots=True)
class OperationStats:
    """One kind of operation on one collection."""

    collection: str = label("The collection.", "db_collection_name", in_json=False)
    operation: str = label("The driver's method.", "db_operation_name", in_json=False)
    duration: Histogram = histogram(
        "Query execution time, queue wait included.", "db_client_operation_duration_seconds", in_json=False
    )
    errors: dict[str, int] = counters(
        "Operations that ended with an error, by its class.",
        "db_client_operation_errors_total",
        by="error_type",
        in_json=False,
    )


@dataclass(slots=True)
class CoalescerStats:
    """Reads or writes of one collection that travel in batches."""

    kind: Coalesced = label("`read` or `write`.", "kind")
    collection: str = label("The collection.", "db_collection_name")
    operations: int = counter("Operations that callers asked for.", "sluice_coalescing_operations_total")
    batches: int = counter("Batches that were sent.")
    saved: int = counter("Round trips that coalescing has saved: operations less batches.", derived=True)
    in_flight: int = gauge("Batches that are in flight.", "sluice_coalescing_in_flight")
    waiting: int = gauge("Operations that wait for a batch.", "sluice_coalescing_waiting")
    refused: int = counter("Operations refused at a full queue.", "sluice_coalescing_refused_total")
    mean_batch_size: float = gauge("Operations in one batch, on average.", default=0.0, derived=True)
    wait_time: Histogram = histogram(
        "Time that an operation waited for its batch to be sent.", "sluice_coalescing_wait_time_seconds"
    )
    batch_size: Histogram = histogram(
        "Operations per batch; its count is the number of round trips.",
        "sluice_coalescing_batch_size",
        unit="operations",
        bounds=BATCH_SIZES,
        in_json=False,
    )

    def __post_init__(self) -> None:
        self.saved = self.operations - self.batches
        self.mean_batch_size = self.operations / self.batches if self.batches else 0.0

    def count(self, size: int) -> None:
        """One batch of so many operations leaves."""
        self.batches += 1
        self.operations += size
        self.batch_size.observe(size)


@dataclass(slots=True)
class MemberStatus:
    """What a member reports of itself; None where the monitoring user may not ask or the member doesn't say."""

    member: str = label("Its address.", "member")
    up: bool = gauge("Whether the member answers.", "mongodb_member_up", default=False)
    taken_at: float = gauge("Unix time at which it was asked.", unit="seconds", default=0.0)
    role: MemberState | None = state("The member's present role.", "mongodb_member_role", by="role")
    connections_current: int | None = gauge(
        "Open connections, of all clients.", "mongodb_member_connections_current", default=None
    )
    connections_available: int | None = gauge(
        "Connections that it would still accept.", "mongodb_member_connections_available", default=None
    )
    connections_total_created: int | None = counter(
        "Connections that it has accepted.", "mongodb_member_connections_created_total", default=None
    )
    lag: float | None = gauge(
        "Time behind the primary, where it is known.",
        "mongodb_member_replication_lag_seconds",
        unit="seconds",
        default=None,
    )
    operations: dict[str, int] = counters(
        "Operations since its start, by kind.", "mongodb_member_operations_total", by="kind"
    )
    cache_used_bytes: int | None = gauge(
        "Data in the storage engine's cache.", "mongodb_member_cache_used_bytes", unit="bytes", default=None
    )
    cache_max_bytes: int | None = gauge(
        "The storage engine's cache limit.", "mongodb_member_cache_max_bytes", unit="bytes", default=None
    )
    cache_dirty_bytes: int | None = gauge(
        "Changed data in the cache.", "mongodb_member_cache_dirty_bytes", unit="bytes", default=None
    )
    disk_used_bytes: int | None = gauge(
        "Used space of its data's file system.", "mongodb_member_disk_used_bytes", unit="bytes", default=None
    )
    disk_size_bytes: int | None = gauge(
        "Size of that file system.", "mongodb_member_disk_size_bytes", unit="bytes", default=None
    )

    @property
    def connection_limit(self) -> int | None:
        """How many connections the member accepts, from all clients."""
        if self.connections_current is None or self.connections_available is None:
            return None
        return self.connections_current + self.connections_available


@dataclass(slots=True)
class PoolConfig:
    """The limits of each pool, as their settings have them."""

    max_pool_size: int = gauge("Connections that a pool may open.", "db_client_connection_max")
    min_pool_size: int = gauge("Connections that a pool keeps open.", "db_client_connection_idle_min")
    max_idle_time_ms: int | None = gauge(
        "The time after which an idle connection is closed (null: never).", unit="milliseconds", default=None
    )
    wait_queue_timeout_ms: int = gauge("The longest wait for a connection.", unit="milliseconds")
    idle_max: int = gauge(
        "Idle connections that a pool may keep.", "db_client_connection_idle_max", derived=True, in_json=False
    )

    def __post_init__(self) -> None:
        self.idle_max = self.max_pool_size


@dataclass(slots=True, kw_only=True)
class WorkerSnapshot:
    """One worker. Its slot's number names it; whether it is `alive`, `slots.read_all` says."""

    worker: int = label("The number of its slot.", "worker")
    pid: int = label("Its process id, inside its container.")
    app_name: str = label("The application name that the members see (`appName`).")
    ready: bool = gauge("Whether the worker can serve.", "sluice_worker_ready", default=False)
    starts: int = counter("Workers that have had this slot.", "sluice_worker_starts_total")
    uptime_seconds: float = gauge("Time since its start.", unit="seconds", default=0.0, derived=True)
    age_seconds: float = gauge(
        "Age of these figures; it grows while its event loop is blocked.",
        unit="seconds",
        default=0.0,
        derived=True,
    )
    loop_lag_seconds: float = gauge(
        "Worst delay of the event loop in the last second.",
        "sluice_worker_event_loop_lag_seconds",
        unit="seconds",
        default=0.0,
    )
    cpu_seconds: float = counter("CPU time used.", "sluice_worker_cpu_seconds_total", unit="seconds", default=0.0)
    memory_bytes: int | None = gauge("Resident memory.", "sluice_worker_memory_bytes", unit="bytes", default=None)
    started_at: float = gauge(
        "Unix time of the worker's start.",
        "sluice_worker_started_at_seconds",
        unit="seconds",
        default=0.0,
        in_json=False,
    )
    taken_at: float = gauge(
        "Unix time of these figures.",
        "sluice_worker_statistics_taken_at_seconds",
        unit="seconds",
        default=0.0,
        in_json=False,
    )
    driver: str
    pool_config: PoolConfig
    pools: list[PoolSnapshot]
    operations: list[OperationStats]
    coalescers: list[CoalescerStats]
    members: list[MemberStatus]
    alive: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        now = time.time()
        self.uptime_seconds, self.age_seconds = now - self.started_at, now - self.taken_at

    @property
    def pool(self) -> PoolStats:
        """All its pools added up."""
        return added(PoolStats, [pool.stats for pool in self.pools])


@dataclass(slots=True, kw_only=True)
class ConnectionPlan:
    """What the configuration may open, over all containers."""

    connections: int = gauge(
        "Connections to each member that the configuration may open.", "sluice_connections_configured", in_json=False
    )
    budget: int | None = gauge(
        "Connections to each member that CONNECTION_BUDGET allows; absent without one.",
        "sluice_connection_budget",
        in_json=False,
        default=None,
    )


TABLES = (PoolStats, PoolConfig, OperationStats, CoalescerStats, WorkerSnapshot, ConnectionPlan, MemberStatus)
"""Whatever declares figures, with the labels of `PoolSnapshot` for the first two."""


def metric_names() -> set[str]:
    """The name of every metric of Sluice's, as Prometheus stores it (a histogram without its suffixes)."""
    return {figure.metric for table in TABLES for figure in figures_of(table) if figure.exported}
