"""All workers of a container added up: what `/connection-stats` and people see.

Gauges are summed over the live workers' snapshots, counters over every slot that was ever used, so that each sum
equals its parts to the letter.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sluice.statistics.histogram import Histogram
from sluice.statistics.snapshot import CoalescerStats, Counters, Gauges, MemberStatus, PoolConfig, WorkerSnapshot

_Row = tuple[Gauges | None, Counters]


@dataclass(slots=True, kw_only=True)
class Durations:
    """Seconds; the percentiles are None before the first observation."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(slots=True, kw_only=True)
class PoolSummary:
    """Pools added up. The first four are the names of old; `available_connections` counts the operations that could
    start now without waiting, in the pools that the default read preference can use."""

    current_connections: int
    available_connections: int
    total_created: int
    active_connections: int
    idle_connections: int
    connecting: int
    waiting: int
    oldest_waiter_seconds: float
    wait_queue_limit: int
    utilization: float
    paused_pools: int
    refused_queue_full: int
    refused_queue_timeout: int
    failed_to_open: int
    closed: dict[str, int]
    wait_time: Durations
    use_time: Durations
    create_time: Durations


@dataclass(slots=True, kw_only=True)
class MemberSummary:
    member: str
    pool: PoolSummary


@dataclass(slots=True, kw_only=True)
class WorkerSummary:
    worker: int
    pid: int
    app_name: str
    ready: bool
    starts: int
    uptime_seconds: float
    age_seconds: float
    loop_lag_seconds: float
    cpu_seconds: float
    memory_bytes: int
    pool: PoolSummary


@dataclass(slots=True, kw_only=True)
class CoalescingSummary:
    """Reads or writes of one collection: `operations` were asked for, `batches` were sent, which saved the rest."""

    kind: str
    collection: str
    operations: int
    batches: int
    saved: int
    in_flight: int
    waiting: int
    refused: int
    mean_batch_size: float
    wait_time: Durations


@dataclass(slots=True, kw_only=True)
class ContainerSummary:
    """`pool_config` holds the limits of each pool; `server_view` is what the members report of everybody's use."""

    pool: PoolSummary
    pool_config: PoolConfig | None
    driver: str | None
    members: list[MemberSummary]
    workers: list[WorkerSummary]
    coalescing: list[CoalescingSummary]
    server_view: list[MemberStatus]


def summarize(snapshots: Sequence[WorkerSnapshot]) -> ContainerSummary:
    """Add up what `slots.read_all` found."""
    now = time.time()
    alive = [snapshot for snapshot in snapshots if snapshot.alive]
    by_member: dict[str, list[_Row]] = {}
    for snapshot in snapshots:
        for pool in snapshot.pools:
            row = (pool.gauges if snapshot.alive else None, pool.counters)
            by_member.setdefault(pool.member, []).append(row)
    return ContainerSummary(
        pool=_added([row for rows in by_member.values() for row in rows]),
        pool_config=alive[0].pool_config if alive else None,
        driver=alive[0].driver if alive else None,
        members=[MemberSummary(member=member, pool=_added(rows)) for member, rows in sorted(by_member.items())],
        workers=[_worker(snapshot, now) for snapshot in alive],
        coalescing=_coalescing(snapshots),
        server_view=server_view(alive),
    )


def server_view(snapshots: Iterable[WorkerSnapshot]) -> list[MemberStatus]:
    """The newest status of each member, whichever worker asked for it."""
    newest: dict[str, MemberStatus] = {}
    for status in (status for snapshot in snapshots if snapshot.alive for status in snapshot.members):
        if status.member not in newest or newest[status.member].taken_at < status.taken_at:
            newest[status.member] = status
    return [newest[member] for member in sorted(newest)]


def _coalescing(snapshots: Sequence[WorkerSnapshot]) -> list[CoalescingSummary]:
    by_name: dict[tuple[str, str], list[tuple[bool, CoalescerStats]]] = {}
    for snapshot in snapshots:
        for stats in snapshot.coalescers:
            by_name.setdefault((stats.collection, stats.kind), []).append((snapshot.alive, stats))
    summaries = []
    for (collection, kind), rows in sorted(by_name.items()):
        operations, batches = sum(stats.operations for _, stats in rows), sum(stats.batches for _, stats in rows)
        waits = Histogram()
        for _, stats in rows:
            waits.add(stats.waits)
        summaries.append(
            CoalescingSummary(
                kind=kind,
                collection=collection,
                operations=operations,
                batches=batches,
                saved=operations - batches,
                in_flight=sum(stats.in_flight for alive, stats in rows if alive),
                waiting=sum(stats.waiting for alive, stats in rows if alive),
                refused=sum(stats.refused for _, stats in rows),
                mean_batch_size=operations / batches if batches else 0.0,
                wait_time=_durations(waits),
            )
        )
    return summaries


def _worker(snapshot: WorkerSnapshot, now: float) -> WorkerSummary:
    return WorkerSummary(
        pool=_added([(pool.gauges, pool.counters) for pool in snapshot.pools]),
        worker=snapshot.slot,
        pid=snapshot.pid,
        app_name=snapshot.app_name,
        ready=snapshot.ready,
        starts=snapshot.starts,
        uptime_seconds=now - snapshot.started_at,
        age_seconds=now - snapshot.taken_at,
        loop_lag_seconds=snapshot.loop_lag,
        cpu_seconds=snapshot.cpu_seconds,
        memory_bytes=snapshot.memory_bytes,
    )


def _added(rows: Sequence[_Row]) -> PoolSummary:
    gauges = [row for row, _ in rows if row is not None]
    total = Counters()
    for _, counters in rows:
        total.add(counters)
    usable = [row for row in gauges if row.eligible]
    slots = sum(row.slots for row in usable)
    idle, used = sum(row.idle for row in gauges), sum(row.used for row in gauges)
    return PoolSummary(
        current_connections=idle + used,
        available_connections=sum(row.free for row in usable),
        total_created=total.opened,
        active_connections=used,
        idle_connections=idle,
        connecting=sum(row.connecting for row in gauges),
        waiting=sum(row.waiting for row in gauges),
        oldest_waiter_seconds=max((row.oldest_wait for row in gauges), default=0.0),
        wait_queue_limit=sum(row.queue_limit for row in gauges),
        utilization=sum(row.held for row in usable) / slots if slots else 0.0,
        paused_pools=sum(row.paused for row in gauges),
        refused_queue_full=total.refusals.full,
        refused_queue_timeout=total.refusals.timeout,
        failed_to_open=total.failed,
        closed=total.closed,
        wait_time=_durations(total.waits),
        use_time=_durations(total.uses),
        create_time=_durations(total.creations),
    )


def _durations(histogram: Histogram) -> Durations:
    count = histogram.count
    return Durations(
        count=count,
        mean=histogram.total / count if count else None,
        p50=histogram.quantile(0.50),
        p95=histogram.quantile(0.95),
        p99=histogram.quantile(0.99),
    )
