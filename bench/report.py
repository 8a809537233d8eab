"""The figures as tables: on the terminal, and in docs/performance.md between its markers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.plan import TARGET_LEVEL
from bench.results import Labels, Results, Workload
from bench.sides import CEILING, KINDS, MOTOR, PYMONGO, SLUICE, WAYS
from bench.tables import bars, comparison, number, table, times
from bench.targets import targets

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_MARKED = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)
NOT_MEASURED = "*Not measured yet.*"


def refresh(results: Results, page: Path = PAGE) -> None:
    """Put the figures into the page."""
    page.write_text(rendered(page.read_text(), results))


def rendered(page: str, results: Results) -> str:
    """The page with these figures between its markers. Raises `KeyError` for a marker that nothing belongs to, and for
    what has none."""
    if unplaced := SECTIONS.keys() - {found[2] for found in _MARKED.finditer(page)}:
        raise KeyError(f"the page has no place for {', '.join(sorted(unplaced))}")
    return _MARKED.sub(lambda found: f"{found[1]}{section(found[2], results)}\n{found[3]}", page)


def text(results: Results) -> str:
    """Everything for the terminal."""
    parts = [f"{name}\n\n{section(name, results)}" for name in SECTIONS if name in ("targets", *results.workloads)]
    return re.sub(r"</?(details|summary)>", "", "\n\n".join((plot(results), *parts)))


def section(name: str, results: Results) -> str:
    """The Markdown of one marker. Raises `KeyError` for an unknown one."""
    make = SECTIONS[name]
    if isinstance(make, _OfWorkload):
        if name not in results.workloads:
            return NOT_MEASURED
        workload = results.workloads[name]
        setup = "\n".join(f"- {line}" for line in workload.setup)
        return f"{setup}\n- Measured {workload.date}.\n\n{make.make(workload)}"
    return make(results)


class _OfWorkload:
    def __init__(self, make: Callable[[Workload], str]) -> None:
        self.make = make


def plot(results: Results) -> str:
    """The most telling figures as bars."""
    found = []
    if pool := results.workloads.get("pool"):
        for operation in ("find_one", "insert_one"):
            values = {
                str(row.labels["side"]): row.median("rate")
                for row in pool.select(driver="pymongo", operation=operation, callers=TARGET_LEVEL)
            }
            found.append(bars(f"{operation} per second, {TARGET_LEVEL} callers, PyMongo", values))
    if http := results.workloads.get("http"):
        values = {
            str(row.labels["side"]): row.median("rate")
            for row in http.select(way="nginx", kind="read", connections=TARGET_LEVEL)
        }
        found.append(bars(f"GET /users/{{id}} per second through nginx, {TARGET_LEVEL} connections", values))
    return "\n\n".join(found)


def _machine(results: Results) -> str:
    return table(["what", "value"], [[name, value] for name, value in results.machine.items()])


def _targets(results: Results) -> str:
    rows = [
        [
            target.name,
            f"{'≤' if target.at_most else '≥'} {target.limit:g}{target.unit}",
            "–" if target.measured is None else f"{number(target.measured)}{target.unit}",
            target.verdict,
        ]
        for target in targets(results)
    ]
    return table(["target", "wanted", "measured", "verdict"], rows) if rows else NOT_MEASURED


def _pool(pool: Workload) -> str:
    return "\n\n".join(
        f"**{operation}, {driver}**\n\n"
        + comparison(pool, {"driver": driver, "operation": operation}, "callers", "driver")
        for driver in ("pymongo", "motor")
        for operation in ("find_one", "insert_one")
    )


def _fairness(fairness: Workload) -> str:
    rows = []
    for row in fairness.rows:
        least, most = row.median("least") or 0, row.median("most") or 1
        figures = [number(row.median(figure)) for figure in ("rate", "p50", "p99", "p999", "max", "least", "most")]
        rows.append([f"{row.labels['driver']}, {row.labels['side']}", *figures, number(least / most)])
    head = [
        "driver, side",
        "per second",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "least served",
        "most served",
        "ratio",
    ]
    return table(head, rows)


def _sizes(sizes: Workload) -> str:
    rows = [
        [f"{row.labels['callers']}", f"{row.labels['pool']}"]
        + [number(row.median(figure)) for figure in ("rate", "p50", "p99", "p999", "max")]
        for row in sizes.rows
    ]
    return table(["callers", "pool size", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], rows)


def _http(http: Workload) -> str:
    sides = [app.name for app in (SLUICE, MOTOR, PYMONGO, CEILING)]
    rows = []
    for way in WAYS:
        for kind in KINDS:
            labels: Labels = {"way": way, "kind": kind, "connections": TARGET_LEVEL}
            rates = [number(http.median("rate", **labels, side=side)) for side in sides]
            ratios = [
                times(http.ratio("rate", {**labels, "side": SLUICE.name}, {**labels, "side": side}))
                for side in sides[1:]
            ]
            rows.append([f"{way}, {kind}", *rates, *ratios])
    head = ["way, request", *sides, *(f"Sluice ÷ {side}" for side in sides[1:])]
    memory = [
        [str(row.labels["side"]), number(row.median("rss")), number(row.median("pss"))]
        for row in http.select(kind="memory")
    ]
    details = [
        f"<details><summary>{way}, {kind}: every level</summary>\n\n"
        + comparison(
            http, {"way": way, "kind": kind}, "connections", MOTOR.name, {"cpu": "worker CPU µs", "errors": "errors"}
        )
        + "\n\n</details>"
        for way in WAYS
        for kind in KINDS
    ]
    return "\n\n".join(
        (
            f"**Requests per second, {TARGET_LEVEL} connections**",
            table(head, rows),
            "**A worker's memory after all of it**",
            table(["side", "resident MiB", "proportional MiB"], memory),
            *details,
        )
    )


def _overload(overload: Workload) -> str:
    columns = {
        "capacity": "capacity", "offered": "offered", "goodput": "goodput", "p50": "p50 ms", "p99": "p99 ms",
        "p999": "p99.9 ms", "max": "max ms", "refusals": "refused", "refused_p50": "refused p50 ms",
        "refused_p99": "refused p99 ms", "broken": "other", "unanswered": "unanswered", "lag_p99": "lag ms",
    }  # fmt: skip
    rows = [
        [f"{row.labels['route']}, {row.labels['side']}, {row.labels['load']:g}×"]
        + [number(row.median(figure)) for figure in columns]
        for row in overload.rows
    ]
    return table(["route, side, load", *columns.values()], rows)


def _instrumentation(instrumentation: Workload) -> str:
    rows = []
    for row in instrumentation.rows:
        off = {**row.labels, "side": "off"}
        rows.append(
            [f"{row.labels['kind']}, {row.labels['side']}"]
            + [number(row.median(figure)) for figure in ("rate", "p50", "p99", "p999", "max", "cpu")]
            + [times(instrumentation.ratio(figure, row.labels, off)) for figure in ("rate", "cpu")]
        )
    head = ["request, side", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "worker CPU µs"]
    return table([*head, "rate ÷ off", "CPU ÷ off"], rows)


def _profile(profile: Workload) -> str:
    parts = [
        [str(row.labels["part"]), f"{row.median('share') or 0:.1%}", number(row.median("microseconds"))]
        for row in profile.rows
        if "part" in row.labels
    ]
    functions = [
        [f"`{row.labels['function']}`", f"{row.median('share') or 0:.1%}"]
        for row in profile.rows
        if "function" in row.labels
    ]
    return "\n\n".join((table(["part", "share", "µs per request"], parts), table(["function", "share"], functions)))


SECTIONS: dict[str, _OfWorkload | Callable[[Results], str]] = {
    "machine": _machine,
    "targets": _targets,
    "pool": _OfWorkload(_pool),
    "fairness": _OfWorkload(_fairness),
    "sizes": _OfWorkload(_sizes),
    "http": _OfWorkload(_http),
    "overload": _OfWorkload(_overload),
    "instrumentation": _OfWorkload(_instrumentation),
    "profile": _OfWorkload(_profile),
}
