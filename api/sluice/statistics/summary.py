"""All workers of a container added up: what `/connection-stats` and people see.

Gauges are summed over the live workers' snapshots, counters over every slot that was ever used, so that each sum
equals its parts to the letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sluice.statistics.figures import added, figures, past
from sluice.statistics.histogram import Histogram
from sluice.statistics.snapshot import CoalescerStats, MemberStatus, PoolStats, WorkerSnapshot

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(slots=True, kw_only=True)
class MemberSummary:
    """One member's pools, over all workers."""

    member: str
    pool: PoolStats


@dataclass(slots=True, kw_only=True)
class ContainerSummary:
    """`workers` are those alive; `server_view` is what the members report of everybody's use."""

    pool: PoolStats
    members: list[MemberSummary]
    workers: list[WorkerSnapshot]
    coalescing: list[CoalescerStats]
    server_view: list[MemberStatus]


def summarize(snapshots: Sequence[WorkerSnapshot]) -> ContainerSummary:
    """Add up what `slots.read_all` found."""
    alive = [snapshot for snapshot in snapshots if snapshot.alive]
    by_member: dict[str, list[PoolStats]] = {}
    by_collection: dict[tuple[str, str], list[CoalescerStats]] = {}
    for snapshot in snapshots:
        for pool in snapshot.pools:
            stats = pool.stats if snapshot.alive else past(pool.stats)
            by_member.setdefault(pool.member, []).append(stats)
        for coalescer in snapshot.coalescers:
            part = coalescer if snapshot.alive else past(coalescer)
            by_collection.setdefault((part.collection, part.kind), []).append(part)
    return ContainerSummary(
        pool=added(PoolStats, [stats for rows in by_member.values() for stats in rows]),
        members=[
            MemberSummary(member=member, pool=added(PoolStats, by_member[member])) for member in sorted(by_member)
        ],
        workers=alive,
        coalescing=[added(CoalescerStats, by_collection[key]) for key in sorted(by_collection)],
        server_view=server_view(alive),
    )


def server_view(snapshots: Iterable[WorkerSnapshot]) -> list[MemberStatus]:
    """The newest status of each member, whichever worker asked for it."""
    newest: dict[str, MemberStatus] = {}
    for status in (status for snapshot in snapshots if snapshot.alive for status in snapshot.members):
        if status.member not in newest or newest[status.member].taken_at < status.taken_at:
            newest[status.member] = status
    return [newest[member] for member in sorted(newest)]


def as_json(stats: DataclassInstance) -> dict[str, object]:
    """The published figures of a dataclass that declares some, for `json.dumps`; a histogram as `durations` has it."""
    return {
        figure.name: durations(value) if isinstance(value := getattr(stats, figure.name), Histogram) else value
        for figure in figures(type(stats))
        if figure.in_json
    }


def durations(histogram: Histogram) -> dict[str, float | None]:
    """In seconds; the mean and the percentiles are None before the first observation."""
    return {
        "count": histogram.count,
        "mean": histogram.mean,
        "p50": histogram.quantile(0.50),
        "p95": histogram.quantile(0.95),
        "p99": histogram.quantile(0.99),
    }
