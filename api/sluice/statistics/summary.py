"""All workers of a container added up: what `/connection-stats` and people see.

Gauges are summed over the live workers' snapshots, counters over every slot that was ever used, so that each sum
equals its parts to the letter.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sluice.statistics.figures import added, counter, figures_of, gauge, label, past
from sluice.statistics.histogram import Histogram
from sluice.statistics.snapshot import CoalescerStats, MemberStatus, PoolStats, WorkerSnapshot

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(slots=True, kw_only=True)
class MemberSummary:
    """One member's pools, over all workers."""

    member: str = label("Its address, `*` for the one wait queue that Motor has for all members.")
    pool: PoolStats


STATUS_LASTS = 20.0
"""Seconds for which the status that a worker took is shown after its end: one is taken every 5 s, by one of them."""


@dataclass(slots=True, kw_only=True)
class ContainerSummary:
    """`workers` are those alive; `server_view` is what the members report of all clients."""

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
        server_view=server_view(snapshots),
    )


def server_view(snapshots: Iterable[WorkerSnapshot]) -> list[MemberStatus]:
    """The newest status of each member, whichever worker asked for it, and though it may have been replaced since."""
    newest: dict[str, MemberStatus] = {}
    valid_from = time.time() - STATUS_LASTS
    for snapshot in snapshots:
        for status in snapshot.members:
            if not snapshot.alive and status.taken_at < valid_from:
                continue
            if status.member not in newest or newest[status.member].taken_at < status.taken_at:
                newest[status.member] = status
    return [newest[member] for member in sorted(newest)]


@dataclass(slots=True, kw_only=True)
class Distribution:
    """What JSON shows of a histogram of durations."""

    count: int = counter("How many were observed.")
    mean: float | None = gauge("Their mean (null before the first).", unit="seconds", default=None)
    p50: float | None = gauge("Their median (null before the first).", unit="seconds", default=None)
    p95: float | None = gauge("What 95 % of them don't exceed (null before the first).", unit="seconds", default=None)
    p99: float | None = gauge("What 99 % of them don't exceed (null before the first).", unit="seconds", default=None)

    @classmethod
    def of(cls, histogram: Histogram) -> Distribution:
        return cls(
            count=histogram.count,
            mean=histogram.mean,
            p50=histogram.quantile(0.50),
            p95=histogram.quantile(0.95),
            p99=histogram.quantile(0.99),
        )


def as_json(stats: DataclassInstance) -> dict[str, object]:
    """The figures that a dataclass publishes, for `json.dumps`: numbers, words, and a `Distribution` of histograms."""
    return {
        figure.name: as_json(Distribution.of(value)) if isinstance(value, Histogram) else value
        for figure in figures_of(type(stats))
        if figure.in_json
        for value in [getattr(stats, figure.name)]
    }
