"""The targets, and whether the figures reach them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.plan import TARGET_LEVEL
from bench.results import Labels, Results, Workload


@dataclass(frozen=True)
class Target:
    """`limit` is the least (or, with `at_most`, the most) that `measured` may be."""

    name: str
    limit: float
    measured: float | None
    at_most: bool = False
    unit: str = "×"

    @property
    def reached(self) -> bool:
        if self.measured is None:
            return False
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit

    @property
    def verdict(self) -> str:
        """Reached, or by how much it was missed."""
        if self.measured is None:
            return "not measured"
        if self.reached:
            return "reached"
        return f"missed by {abs(self.measured / self.limit - 1):.0%}"


def targets(results: Results) -> list[Target]:
    """Those of the workloads that were measured."""
    makers = {
        "pool": _pool,
        "fairness": _fairness,
        "http": _http,
        "overload": _overload,
        "instrumentation": _instrumentation,
    }
    return [
        target for name, make in makers.items() if name in results.workloads for target in make(results.workloads[name])
    ]


def _pool(pool: Workload) -> Iterator[Target]:
    for driver in ("pymongo", "motor"):
        for side, operation, gain, tail, alone in (
            ("Reader", "find_one", 10, 1 / 5, 0.97),
            ("Writer", "insert_one", 8, 1 / 4, 0.95),
        ):

            def ratio(figure: str, callers: int) -> float | None:
                common: Labels = {"driver": driver, "operation": operation, "callers": callers}  # noqa: B023
                return pool.ratio(figure, {**common, "side": side}, {**common, "side": "driver"})  # noqa: B023

            what = f"{side} ÷ {operation}, {driver}"
            yield Target(f"{what}: throughput, {TARGET_LEVEL} callers", gain, ratio("rate", TARGET_LEVEL))
            yield Target(f"{what}: p99, {TARGET_LEVEL} callers", tail, ratio("p99", TARGET_LEVEL), at_most=True)
            yield Target(f"{what}: throughput, 1 caller", alone, ratio("rate", 1))


def _fairness(fairness: Workload) -> Iterator[Target]:
    fair: Labels = {"driver": "pymongo", "side": "fair"}
    longest, usual = fairness.median("max", **fair), fairness.median("p50", **fair)
    least, most = fairness.median("least", **fair), fairness.median("most", **fair)
    yield Target("Saturated pool: longest wait ÷ median", 2, _over(longest, usual), at_most=True)
    yield Target("Saturated pool: least- ÷ most-served caller", 0.95, _over(least, most))


def _http(http: Workload) -> Iterator[Target]:
    common: Labels = {"way": "nginx", "kind": "read"}
    for side, limit in (("Motor template", 4), ("PyMongo template", 2.5), ("no database", 0.7)):
        labels: Labels = {**common, "connections": TARGET_LEVEL}
        ratio = http.ratio("rate", {**labels, "side": "Sluice"}, {**labels, "side": side})
        yield Target(f"GET /users/{{id}} ÷ {side}: throughput, {TARGET_LEVEL} connections", limit, ratio)
    for side in ("Motor template", "PyMongo template"):
        tails = [
            http.ratio("p99", row.labels, {**row.labels, "side": side}) for row in http.select(**common, side="Sluice")
        ]
        worst = max((tail for tail in tails if tail is not None), default=None)
        yield Target(f"GET /users/{{id}} ÷ {side}: p99, at the worst level", 1, worst, at_most=True)
    yield Target("A worker's memory", 90, http.median("rss", kind="memory", side="Sluice"), at_most=True, unit=" MiB")


def _overload(overload: Workload) -> Iterator[Target]:
    for route in ("list", "read"):
        side: Labels = {"route": route, "side": "Sluice"}
        peak = max((row.median("goodput") or 0 for row in overload.select(**side)), default=0)
        goodput = _over(overload.median("goodput", **side, load=3.0), peak)
        tail = overload.ratio("p99", {**side, "load": 3.0}, {**side, "load": 1.0})
        refused = overload.median("refused_p99", **side, load=3.0)
        yield Target(f"3× capacity, {route}: goodput ÷ peak", 0.95, goodput)
        yield Target(f"3× capacity, {route}: admitted p99 ÷ that at capacity", 2, tail, at_most=True)
        yield Target(f"3× capacity, {route}: refusals answered, p99", 20, refused, at_most=True, unit=" ms")


def _instrumentation(instrumentation: Workload) -> Iterator[Target]:
    for kind in ("read", "list"):
        ratio = instrumentation.ratio("rate", {"kind": kind, "side": "on"}, {"kind": kind, "side": "off"})
        cost = None if ratio is None else 100 * (1 - ratio)
        yield Target(f"Cost of instrumentation, {kind}", 5, cost, at_most=True, unit=" %")


def _over(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
