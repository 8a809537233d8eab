"""Slow operations by operation and route, with exact percentiles."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from math import ceil

from scripts.log_report.records import Record
from scripts.log_report.table import Row

NEEDLES = (b"Execution time",)
HEADER = ("OPERATION", "ROUTE", "COUNT", "P50", "P95", "P99", "MAX", "TOTAL")
NOTHING = "No slow operations."

_LINE = re.compile(
    r"Execution time of (?P<operation>\S+)(?: for (?P<route>.+))? \(seconds\): (?P<seconds>\d+(?:\.\d+)?)"
)


def report(records: Iterable[Record], over: float | None = None) -> list[Row]:
    """The rows, those that took most time in all first; only of operations of more than `over` seconds."""
    times: dict[tuple[str, str], array[float]] = {}
    for record in records:
        match = _LINE.fullmatch(record.message)
        if match is None:
            continue
        seconds = float(match["seconds"])
        if over is None or seconds > over:
            times.setdefault((match["operation"], match["route"] or "-"), array("d")).append(seconds)
    rows: list[Row] = []
    for (operation, route), seconds_of in sorted(times.items(), key=lambda item: -sum(item[1])):
        ordered = sorted(seconds_of)
        percentiles = (percentile(ordered, rank) for rank in (50, 95, 99))
        rows.append((operation, route, len(ordered), *percentiles, ordered[-1], sum(ordered)))
    return rows


def percentile(ordered: Sequence[float], rank: int) -> float:
    """The smallest of the values that `rank` percent of them don't exceed."""
    return ordered[ceil(len(ordered) * rank / 100) - 1]
