"""The figures for Prometheus: a collector that reads every worker's slot.

Names follow OpenTelemetry's semantic conventions for database clients in their Prometheus spelling
(https://opentelemetry.io/docs/specs/semconv/database/database-metrics/); what they don't know begins with `sluice_`
(a worker) or `mongodb_member_` (what a member says of itself; `max by (member)` is right with any number of
containers). Each is declared with its figure, in `sluice.statistics.snapshot`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sluice.pool.budget import Demand
from sluice.statistics.figures import Figure, Kind, figures_of
from sluice.statistics.histogram import Histogram
from sluice.statistics.slots import read_all
from sluice.statistics.snapshot import (
    CoalescerStats,
    ConnectionPlan,
    MemberStatus,
    OperationStats,
    PoolConfig,
    PoolSnapshot,
    PoolStats,
    WorkerSnapshot,
)
from sluice.statistics.summary import server_view

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily
Labels = dict[str, str]
Row = tuple[Labels, "DataclassInstance", bool]
"""Figures, the labels that name whose they are, and whether they are of now: else only what grows is exported."""

POOL_NAME = "db_client_connection_pool_name"
KINDS: dict[Kind, type[Family]] = {
    "gauge": GaugeMetricFamily,
    "state": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


def exported(table: type[DataclassInstance]) -> list[Figure]:
    """The figures of a table that are metrics."""
    return [figure for figure in figures_of(table) if figure.exported]


class SluiceCollector(Collector):
    """Exports the snapshots of every worker of the container, whichever worker is asked."""

    def __init__(
        self, directory: Path | str, pool_name: str, *, demand: Demand | None = None, budget: int | None = None
    ) -> None:
        self._directory = Path(directory)
        self._pool_name = pool_name
        self._plan = ConnectionPlan(connections=demand.connections, budget=budget) if demand is not None else None

    def collect(self) -> Iterator[Family]:
        workers = read_all(self._directory)
        pools = [(worker, pool, self._labels(worker, pool)) for worker in workers for pool in worker.pools]
        yield from _families(PoolStats, [(labels, pool.stats, w.alive and pool.exists) for w, pool, labels in pools])
        yield from _families(
            PoolConfig, [(labels, w.pool_config, w.alive and pool.exists) for w, pool, labels in pools]
        )
        yield from _families(
            OperationStats, [(_labels(w, part), part, w.alive) for w in workers for part in w.operations]
        )
        yield from _families(
            CoalescerStats, [(_labels(w, part), part, w.alive) for w in workers for part in w.coalescers]
        )
        yield from _families(WorkerSnapshot, [(_labels(worker), worker, worker.alive) for worker in workers])
        yield from _families(MemberStatus, [(_labels(status), status, True) for status in server_view(workers)])
        yield from _families(ConnectionPlan, [({}, self._plan, True)] if self._plan is not None else [])

    def _labels(self, worker: WorkerSnapshot, pool: PoolSnapshot) -> Labels:
        return {POOL_NAME: self._pool_name} | _labels(worker, pool)


def _labels(*parts: DataclassInstance) -> Labels:
    return {
        figure.metric: str(getattr(part, figure.name))
        for part in parts
        for figure in figures_of(type(part))
        if figure.kind == "label" and figure.metric
    }


def _families(table: type[DataclassInstance], rows: Sequence[Row]) -> Iterator[Family]:
    """Every metric of the table, also without a sample; figures may share one, apart by their fixed labels."""
    found: dict[str, Family] = {}
    for figure in exported(table):
        family = found.get(figure.metric)
        if family is None:
            names = [*(rows[0][0] if rows else ()), *figure.labels, *((figure.by,) if figure.by else ())]
            family = found[figure.metric] = KINDS[figure.kind](
                figure.metric, figure.metric_help or figure.meaning, labels=names
            )
        for labels, stats, of_now in rows:
            if of_now or figure.grows:
                _add(family, figure, list(labels.values()), getattr(stats, figure.name))
    yield from found.values()


def _add(family: Family, figure: Figure, labels: list[str], value: Any) -> None:
    """The samples of one value; none where it isn't known."""
    if isinstance(family, HistogramMetricFamily):
        family.add_metric(labels, _buckets(value), value.total)
    elif figure.kind == "state":
        if value is not None:
            family.add_metric([*labels, value], 1)
    elif figure.by:
        for key, count in value.items():
            family.add_metric([*labels, key], count)
    elif value is not None:
        family.add_metric([*labels, *figure.labels.values()], value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Counts up to and including each bound, as Prometheus wants them."""
    names = [str(float(bound)) for bound in histogram.bounds]
    return list(zip([*names, "+Inf"], map(float, accumulate(histogram.counts)), strict=True))
