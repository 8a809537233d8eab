"""How a statistic is declared: once, as a field of a dataclass, with all there is to know about it.

    failed_to_open: int = counter("Connections that could not be opened.", "db_client_connection_create_failures_total")

The field's name is its name everywhere in the code and in JSON. Snapshots, sums, `/connection-stats` and its schema,
the Prometheus metrics and the tables in docs/ are all made from these fields, so that a new one is one line in
`sluice.statistics.snapshot`, and whatever sets or counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sluice.statistics.histogram import BOUNDS, Histogram

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = Literal["label", "state", "gauge", "counter", "histogram"]
Total = Literal["sum", "max", "sum of eligible"]
Stats = TypeVar("Stats", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One statistic.

    `kind`: a `gauge` describes now and ends with its worker; a `counter` or `histogram` only grows and is continued by
    the slot's next owner; a `label` tells whose figures they are; a `state` is one word out of several.
    `metric` is the name for Prometheus, or for a label the label's; `labels` are fixed ones, for figures that share a
    metric (and its `metric_help`), `by` the label that keys a dictionary or holds a state. `total` is how several
    pools are added up: `sum of eligible` leaves out those that the default read preference can't use. A `derived`
    figure is worked out from others and stored nowhere.
    """

    name: str = ""
    kind: Kind
    meaning: str
    unit: str = ""
    metric: str = ""
    metric_help: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    by: str = ""
    total: Total = "sum"
    derived: bool = False
    in_json: bool = True

    @property
    def description(self) -> str:
        """The meaning, with the unit."""
        return f"{self.meaning.removesuffix('.')}, in {self.unit}." if self.unit else self.meaning

    @property
    def exported(self) -> bool:
        """Whether it is a metric."""
        return bool(self.metric) and self.kind != "label"

    @property
    def grows(self) -> bool:
        """Since the slot was first used, over all its owners."""
        return self.kind in ("counter", "histogram")


def label(meaning: str, metric: str = "", *, in_json: bool = True) -> Any:
    """Whose figures they are: a required `str` or `int`, `metric` the label's name in Prometheus if it has one."""
    return field(metadata={"figure": Figure(kind="label", meaning=meaning, metric=metric, in_json=in_json)})


def state(meaning: str, metric: str, *, by: str) -> Any:
    """A `str | None`, None while it isn't known; in Prometheus 1 with the word as the label `by`."""
    return field(default=None, metadata={"figure": Figure(kind="state", meaning=meaning, metric=metric, by=by)})


def gauge(
    meaning: str,
    metric: str = "",
    *,
    metric_help: str = "",
    labels: Mapping[str, str] | None = None,
    unit: str = "",
    total: Total = "sum",
    default: float | None = 0,
    derived: bool = False,
    in_json: bool = True,
) -> Any:
    """A number (or `bool`) as it is now; None where it isn't known. Give a `float` the default 0.0."""
    figure = Figure(
        kind="gauge",
        meaning=meaning,
        unit=unit,
        metric=metric,
        metric_help=metric_help,
        labels=labels or {},
        total=total,
        derived=derived,
        in_json=in_json,
    )
    return field(default=default, init=not derived, metadata={"figure": figure})


def counter(meaning: str, metric: str = "", *, unit: str = "", default: float | None = 0, derived: bool = False) -> Any:
    """A number that only grows; None where it isn't known."""
    figure = Figure(kind="counter", meaning=meaning, unit=unit, metric=metric, derived=derived)
    return field(default=default, init=not derived, metadata={"figure": figure})


def counters(meaning: str, metric: str, *, by: str, in_json: bool = True) -> dict[str, int]:
    """Numbers that only grow, by a key that is the label `by` in Prometheus."""
    figure = Figure(kind="counter", meaning=meaning, metric=metric, by=by, in_json=in_json)
    return field(default_factory=dict, metadata={"figure": figure})


def histogram(
    meaning: str, metric: str, *, unit: str = "seconds", bounds: Sequence[float] = BOUNDS, in_json: bool = True
) -> Histogram:
    """What was observed, by size; in JSON its count, mean and percentiles."""
    figure = Figure(kind="histogram", meaning=meaning, unit=unit, metric=metric, in_json=in_json)
    return field(default_factory=lambda: Histogram(tuple(bounds)), metadata={"figure": figure})


@cache
def figures_of(table: type[DataclassInstance]) -> tuple[Figure, ...]:
    """Those that a dataclass declares, in their order, which is JSON's."""
    return tuple(
        replace(each.metadata["figure"], name=each.name) for each in fields(table) if "figure" in each.metadata
    )


def added(table: type[Stats], rows: Iterable[Stats]) -> Stats:
    """All the rows in one; its labels are the first row's."""
    rows = list(rows)
    eligible = [row for row in rows if getattr(row, "eligible", True)]
    values = {}
    for figure in figures_of(table):
        if figure.kind == "label":
            values[figure.name] = getattr(rows[0], figure.name)
        elif not figure.derived:
            parts = [getattr(row, figure.name) for row in (rows if figure.total != "sum of eligible" else eligible)]
            if parts:  # else the default
                values[figure.name] = _total(figure, parts)
    return table(**values)


def _total(figure: Figure, parts: list[Any]) -> object:
    if figure.kind == "histogram":
        return Histogram.added(parts)
    if figure.by:
        keys = {key: None for part in parts for key in part}
        return {key: sum(part.get(key, 0) for part in parts) for key in keys}
    return max(parts) if figure.total == "max" else sum(parts[1:], start=parts[0])


def past(stats: Stats) -> Stats:
    """What outlives its worker: the counters, with every gauge at its start."""
    gone = {figure.name for figure in figures_of(type(stats)) if figure.kind in ("gauge", "state")}
    kept = {each.name: getattr(stats, each.name) for each in fields(stats) if each.init and each.name not in gone}
    return type(stats)(**kept)
