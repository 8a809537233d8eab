"""`PYTHONPATH=api python scripts/figures.py`: regenerate the tables of docs/metrics.md and docs/pool.md.

They are what stands between `<!-- metrics of … -->` or `<!-- fields of … -->`, with the names of the dataclasses that
declare the figures, and `<!-- end -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

from sluice import statistics
from sluice.statistics import Figure, figures_of

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "metrics.md", DOCS / "pool.md")

_TABLE = re.compile(r"(<!-- (metrics|fields) of ([\w, ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with its tables as the code declares the figures."""
    return _TABLE.sub(lambda found: found[1] + _table(found[2], found[3].split(", ")) + found[4], page)


def _table(columns: str, tables: list[str]) -> str:
    declared = [figure for table in tables for figure in figures_of(vars(statistics)[table])]
    return _metrics(declared) if columns == "metrics" else _fields(declared)


def _metrics(declared: list[Figure]) -> str:
    lines = ["| metric | kind | meaning | in `/connection-stats` |", "|---|---|---|---|"]
    exported = [figure for figure in declared if figure.metric and figure.kind != "label"]
    for metric in dict.fromkeys(figure.metric for figure in exported):
        shared = [figure for figure in exported if figure.metric == metric]
        first = shared[0]
        by = "".join(f", also by `{name}`" for name in (first.by, *first.labels) if name)
        kind = "gauge" if first.kind == "state" else first.kind
        names = ", ".join(f"`{figure.name}`" for figure in shared if figure.in_json)
        lines.append(f"| `{metric}` | {kind}{by} | {first.metric_help or first.meaning} | {names} |")
    return "\n".join(lines) + "\n"


def _fields(declared: list[Figure]) -> str:
    lines = ["| field | kind | meaning |", "|---|---|---|"]
    lines += [f"| `{figure.name}` | {figure.kind} | {figure.description} |" for figure in declared if figure.in_json]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written(path.read_text()))
