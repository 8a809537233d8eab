"""Every Prometheus metric that Sluice exports, with its meaning, and the collector that reads them from the slots.

Names follow OpenTelemetry's semantic conventions for database clients in their Prometheus spelling
(https://opentelemetry.io/docs/specs/semconv/database/database-metrics/); what they don't know begins with `sluice_`
(a worker) or `mongodb_member_` (what a member says of itself; `max by (member)` is right with any number of
containers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sluice.pool.budget import Demand
from sluice.statistics.histogram import BOUNDS, Histogram
from sluice.statistics.slots import read_all
from sluice.statistics.snapshot import BATCH_SIZES, CoalescerStats, Counters, Gauges, MemberStatus, WorkerSnapshot
from sluice.statistics.summary import server_view

Source = TypeVar("Source")
Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily

POOL_LABELS = ("db_client_connection_pool_name", "server_address", "worker")
WORKER_LABELS = ("worker",)
MEMBER_LABELS = ("member",)

# One pool, now.
GAUGES: dict[str, tuple[str, Callable[[Gauges], float]]] = {
    "db_client_connection_pending_requests": ("Operations that wait for a connection.", lambda g: g.waiting),
    "db_client_connection_oldest_wait_seconds": ("How long the longest waiter has waited.", lambda g: g.oldest_wait),
    "db_client_connection_connecting": ("Connections that are being opened.", lambda g: g.connecting),
    "db_client_connection_available": ("Operations that could start now without waiting.", lambda g: g.free),
    "db_client_connection_slots": ("Operations that the turnstile lets in at once.", lambda g: g.slots),
    "db_client_connection_slots_held": ("Operations that the turnstile has let in.", lambda g: g.held),
    "db_client_connection_queue_limit": ("Operations that may wait; the next is refused.", lambda g: g.queue_limit),
    "db_client_connection_paused": ("1 while the driver has paused the pool.", lambda g: g.paused),
}  # fmt: skip

# One pool, since the start.
COUNTERS: dict[str, tuple[str, Callable[[Counters], int]]] = {
    "db_client_connection_timeouts_total": ("Operations that waited in vain.", lambda c: c.refusals.timeout),
    "db_client_connection_refused_total": ("Operations refused at a full queue.", lambda c: c.refusals.full),
    "db_client_connection_created_total": ("Connections opened.", lambda c: c.opened),
    "db_client_connection_create_failures_total": ("Connections that could not be opened.", lambda c: c.failed),
}
HISTOGRAMS: dict[str, tuple[str, Callable[[Counters], Histogram]]] = {
    "db_client_connection_create_time_seconds": ("Time to open a connection.", lambda c: c.creations),
    "db_client_connection_wait_time_seconds": ("Time to get a connection from the pool.", lambda c: c.waits),
    "db_client_connection_use_time_seconds": ("Time that a connection was checked out.", lambda c: c.uses),
}
CLOSED = ("db_client_connection_closed_total", "Connections closed, by reason.")

# Each pool's limits.
COUNT = ("db_client_connection_count", "Open connections, by state: idle or used.")
LIMITS: dict[str, tuple[str, Callable[[WorkerSnapshot], int]]] = {
    "db_client_connection_max": ("Connections that a pool may open.", lambda w: w.pool_config.max_pool_size),
    "db_client_connection_idle_max": ("Idle connections that a pool may keep.", lambda w: w.pool_config.max_pool_size),
    "db_client_connection_idle_min": ("Connections that a pool keeps open.", lambda w: w.pool_config.min_pool_size),
}

# One kind of operation on one collection.
OPERATION_LABELS = ("db_operation_name", "db_collection_name", "worker")
OPERATION_DURATION = ("db_client_operation_duration_seconds", "Query execution time, queue wait included.")
OPERATION_ERRORS = ("db_client_operation_errors_total", "Operations that ended with an error, by its class.")

# Reads or writes of one collection that travel in batches.
COALESCER_LABELS = ("kind", "db_collection_name", "worker")
COALESCER_GAUGES: dict[str, tuple[str, Callable[[CoalescerStats], float]]] = {
    "sluice_coalescing_in_flight": ("Batches that are in flight.", lambda c: c.in_flight),
    "sluice_coalescing_waiting": ("Operations that wait for a batch.", lambda c: c.waiting),
}
COALESCER_COUNTERS: dict[str, tuple[str, Callable[[CoalescerStats], float]]] = {
    "sluice_coalescing_operations_total": ("Operations that callers asked for.", lambda c: c.operations),
    "sluice_coalescing_refused_total": ("Operations refused since too many waited.", lambda c: c.refused),
}
BATCH_SIZE = ("sluice_coalescing_batch_size", "Operations in one batch; its count is what was really sent.")
BATCH_WAIT = ("sluice_coalescing_wait_time_seconds", "Time that an operation waited for its batch to leave.")

# One worker.
WORKERS: dict[str, tuple[str, Callable[[WorkerSnapshot], float]]] = {
    "sluice_worker_ready": ("1 when the worker can serve.", lambda w: w.ready),
    "sluice_worker_event_loop_lag_seconds": ("Worst delay of the event loop in the last second.", lambda w: w.loop_lag),
    "sluice_worker_memory_bytes": ("Resident memory.", lambda w: w.memory_bytes),
    "sluice_worker_started_at_seconds": ("Unix time of the worker's start.", lambda w: w.started_at),
    "sluice_worker_statistics_taken_at_seconds": ("Unix time of these figures.", lambda w: w.taken_at),
}
WORKER_COUNTERS: dict[str, tuple[str, Callable[[WorkerSnapshot], float]]] = {
    "sluice_worker_cpu_seconds_total": ("CPU time used.", lambda w: w.cpu_seconds),
    "sluice_worker_starts_total": ("Workers that have had this slot.", lambda w: w.starts),
}

# The container's connection arithmetic.
DEMAND = ("sluice_connections_configured", "Connections to each member that the configuration may open.")
BUDGET = ("sluice_connection_budget", "Connections to each member that CONNECTION_BUDGET allows; absent without one.")

# One member, as it sees itself.
MEMBER_UP = ("mongodb_member_up", "1 when the member answers.")
MEMBERS: dict[str, tuple[str, Callable[[MemberStatus], float | None]]] = {
    "mongodb_member_connections_current": ("Open connections, everybody's.", lambda m: m.connections_current),
    "mongodb_member_connections_available": ("Connections it would still accept.", lambda m: m.connections_available),
    "mongodb_member_replication_lag_seconds": ("Time behind the primary; absent while nobody knows.", lambda m: m.lag),
    "mongodb_member_cache_used_bytes": ("Bytes in the storage engine's cache.", lambda m: m.cache_used_bytes),
    "mongodb_member_cache_max_bytes": ("The storage engine's cache limit.", lambda m: m.cache_max_bytes),
    "mongodb_member_cache_dirty_bytes": ("Changed bytes in the cache.", lambda m: m.cache_dirty_bytes),
    "mongodb_member_disk_used_bytes": ("Used bytes of its data's file system.", lambda m: m.disk_used_bytes),
    "mongodb_member_disk_size_bytes": ("Size of that file system.", lambda m: m.disk_size_bytes),
}
MEMBER_CONNECTIONS_CREATED = ("mongodb_member_connections_created_total", "Connections it has accepted.")
MEMBER_ROLE = ("mongodb_member_role", "1 for the member's present role.")
MEMBER_OPERATIONS = ("mongodb_member_operations_total", "Operations since its start, by kind.")


def names() -> set[str]:
    """The name of every metric here, as Prometheus stores it (a histogram without its suffixes)."""
    tables = (
        GAUGES, COUNTERS, HISTOGRAMS, LIMITS, COALESCER_GAUGES, COALESCER_COUNTERS, WORKERS, WORKER_COUNTERS, MEMBERS,
    )  # fmt: skip
    single = (
        CLOSED, COUNT, OPERATION_DURATION, OPERATION_ERRORS, DEMAND, BUDGET, MEMBER_UP, MEMBER_CONNECTIONS_CREATED,
        MEMBER_ROLE, MEMBER_OPERATIONS, BATCH_SIZE, BATCH_WAIT,
    )  # fmt: skip
    return {name for table in tables for name in table} | {name for name, _ in single}


class SluiceCollector(Collector):
    """Exports the snapshots of every worker of the container, whichever worker is asked."""

    def __init__(
        self, directory: Path, pool_name: str, *, demand: Demand | None = None, budget: int | None = None
    ) -> None:
        self._directory = directory
        self._pool_name = pool_name
        self._demand = demand
        self._budget = budget

    def collect(self) -> Iterator[Family]:
        workers = read_all(self._directory)
        alive = [worker for worker in workers if worker.alive]
        yield from self._pool_gauges(alive)
        yield from self._pool_counters(workers)
        yield from _operations(workers)
        yield from _coalescers(workers)
        yield from _gauges(WORKERS, alive, WORKER_LABELS, lambda worker: (str(worker.slot),))
        for name, (help_text, value) in WORKER_COUNTERS.items():
            yield _filled(
                CounterMetricFamily(name, help_text, labels=WORKER_LABELS),
                [((str(w.slot),), value(w)) for w in workers],
            )
        yield from _members(server_view(alive))
        if self._demand is not None:
            yield _filled(GaugeMetricFamily(*DEMAND, labels=()), [((), self._demand.connections)])
        if self._budget is not None:
            yield _filled(GaugeMetricFamily(*BUDGET, labels=()), [((), self._budget)])

    def _labels(self, worker: WorkerSnapshot, member: str) -> tuple[str, str, str]:
        return (self._pool_name, member, str(worker.slot))

    def _pool_gauges(self, workers: Sequence[WorkerSnapshot]) -> Iterator[Family]:
        pools = [(w, self._labels(w, p.member), p.gauges) for w in workers for p in w.pools if p.gauges is not None]
        count = GaugeMetricFamily(*COUNT, labels=(*POOL_LABELS, "state"))
        for _, labels, gauges in pools:
            count.add_metric((*labels, "idle"), gauges.idle)
            count.add_metric((*labels, "used"), gauges.used)
        yield count
        for name, (help_text, value) in GAUGES.items():
            yield _filled(
                GaugeMetricFamily(name, help_text, labels=POOL_LABELS),
                [(labels, value(gauges)) for _, labels, gauges in pools],
            )
        for name, (help_text, limit) in LIMITS.items():
            yield _filled(
                GaugeMetricFamily(name, help_text, labels=POOL_LABELS),
                [(labels, limit(worker)) for worker, labels, _ in pools],
            )

    def _pool_counters(self, workers: Sequence[WorkerSnapshot]) -> Iterator[Family]:
        pools = [(self._labels(worker, pool.member), pool.counters) for worker in workers for pool in worker.pools]
        for name, (help_text, value) in COUNTERS.items():
            yield _filled(
                CounterMetricFamily(name, help_text, labels=POOL_LABELS),
                [(labels, value(counters)) for labels, counters in pools],
            )
        closed = CounterMetricFamily(*CLOSED, labels=(*POOL_LABELS, "reason"))
        for labels, counters in pools:
            for reason, times in counters.closed.items():
                closed.add_metric((*labels, reason), times)
        yield closed
        for name, (help_text, histogram) in HISTOGRAMS.items():
            family = HistogramMetricFamily(name, help_text, labels=POOL_LABELS)
            for labels, counters in pools:
                _add_histogram(family, labels, histogram(counters))
            yield family


def _operations(workers: Sequence[WorkerSnapshot]) -> Iterator[Family]:
    durations = HistogramMetricFamily(*OPERATION_DURATION, labels=OPERATION_LABELS)
    errors = CounterMetricFamily(*OPERATION_ERRORS, labels=(*OPERATION_LABELS, "error_type"))
    for worker in workers:
        for stats in worker.operations:
            labels = (stats.operation, stats.collection, str(worker.slot))
            _add_histogram(durations, labels, stats.durations)
            for error, times in stats.errors.items():
                errors.add_metric((*labels, error), times)
    yield durations
    yield errors


def _coalescers(workers: Sequence[WorkerSnapshot]) -> Iterator[Family]:
    rows = [
        (worker.alive, _coalescer_labels(worker, stats), stats) for worker in workers for stats in worker.coalescers
    ]
    for name, (help_text, value) in COALESCER_GAUGES.items():
        yield _filled(
            GaugeMetricFamily(name, help_text, labels=COALESCER_LABELS),
            [(labels, value(stats)) for alive, labels, stats in rows if alive],
        )
    for name, (help_text, value) in COALESCER_COUNTERS.items():
        yield _filled(
            CounterMetricFamily(name, help_text, labels=COALESCER_LABELS),
            [(labels, value(stats)) for _, labels, stats in rows],
        )
    sizes = HistogramMetricFamily(*BATCH_SIZE, labels=COALESCER_LABELS)
    waits = HistogramMetricFamily(*BATCH_WAIT, labels=COALESCER_LABELS)
    for _, labels, stats in rows:
        sizes.add_metric(labels, _buckets(BATCH_SIZES, stats.sizes), stats.operations)
        _add_histogram(waits, labels, stats.waits)
    yield sizes
    yield waits


def _coalescer_labels(worker: WorkerSnapshot, stats: CoalescerStats) -> tuple[str, str, str]:
    return (stats.kind, stats.collection, str(worker.slot))


def _members(statuses: Sequence[MemberStatus]) -> Iterator[Family]:
    yield _filled(
        GaugeMetricFamily(*MEMBER_UP, labels=MEMBER_LABELS), [((status.member,), status.up) for status in statuses]
    )
    yield from _gauges(MEMBERS, statuses, MEMBER_LABELS, lambda status: (status.member,))
    created = CounterMetricFamily(*MEMBER_CONNECTIONS_CREATED, labels=MEMBER_LABELS)
    roles = GaugeMetricFamily(*MEMBER_ROLE, labels=(*MEMBER_LABELS, "role"))
    operations = CounterMetricFamily(*MEMBER_OPERATIONS, labels=(*MEMBER_LABELS, "kind"))
    for status in statuses:
        if status.connections_total_created is not None:
            created.add_metric((status.member,), status.connections_total_created)
        if status.role is not None:
            roles.add_metric((status.member, status.role), 1)
        for kind, times in status.operations.items():
            operations.add_metric((status.member, kind), times)
    yield created
    yield roles
    yield operations


def _gauges(
    table: Mapping[str, tuple[str, Callable[[Source], float | None]]],
    sources: Iterable[Source],
    names: Sequence[str],
    labels: Callable[[Source], Sequence[str]],
) -> Iterator[Family]:
    for name, (help_text, value) in table.items():
        known = [(labels(source), figure) for source in sources if (figure := value(source)) is not None]
        yield _filled(GaugeMetricFamily(name, help_text, labels=names), known)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, samples: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily | CounterMetricFamily:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    family.add_metric(labels, _buckets(BOUNDS, histogram.counts), histogram.total)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts up to and including each bound, as Prometheus wants them."""
    names = [str(float(bound)) for bound in bounds]
    return list(zip([*names, "+Inf"], map(float, accumulate(counts)), strict=True))
