"""Tables in Markdown that are readable as text too, and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.results import Labels, Workload

LATENCIES = {"p50": "p50 ms", "p99": "p99 ms", "p999": "p99.9 ms", "max": "max ms"}
BAR = 40


def number(value: float | None) -> str:
    """Three significant digits, thousands apart; a dash for none."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"


def times(value: float | None) -> str:
    return "–" if value is None else f"{number(value)}×"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of even width; all but the first to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    pads = [str.ljust, *[str.rjust] * (len(head) - 1)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(pad(cell, width) for pad, cell, width in zip(pads, cells, widths, strict=True)) + " |"

    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if column == 0 else ":") for column, width in enumerate(widths)) + "|"
    )
    return "\n".join((line(head), rule, *map(line, rows)))


def comparison(
    workload: Workload, common: Labels, level: str, base: str, extra: Mapping[str, str] | None = None
) -> str:
    """Every side at every level: throughput, its ratio to the base side's, latencies, and extra figures."""
    figures = {**LATENCIES, **(extra or {})}
    rows = []
    for row in sorted(workload.select(**common), key=lambda row: row.labels[level]):
        ratio = workload.ratio("rate", row.labels, {**row.labels, "side": base})
        rows.append(
            [
                f"{row.labels[level]:,}",
                str(row.labels["side"]),
                number(row.median("rate")),
                times(ratio),
                *(number(row.median(figure)) for figure in figures),
            ]
        )
    return table([level, "side", "per second", f"÷ {base}", *figures.values()], rows)


def bars(title: str, values: Mapping[str, float | None]) -> str:
    """A plot for terminals."""
    known = {name: value for name, value in values.items() if value}
    if not known:
        return ""
    width, most = max(map(len, known)), max(known.values())
    lines = [
        f"{name.ljust(width)} {'█' * max(1, round(BAR * value / most))} {number(value)}"
        for name, value in known.items()
    ]
    return "\n".join((title, *lines))
