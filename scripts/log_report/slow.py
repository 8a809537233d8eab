"""Slow operations by operation and route, with exact percentiles of those that were logged."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from math import ceil

from scripts.log_report.records import LEFT_OUT, Record
from scripts.log_report.table import Row

NEEDLES = (b"Execution time", b"were left out")
HEADER = ("OPERATION", "ROUTE", "COUNT", "UNLOGGED", "P50", "P95", "P99", "MAX", "TOTAL")
NOTHING = "No slow operations."

_WHAT = r"(?P<operation>\S+)(?: for (?P<route>.+))?"
_LINE = re.compile(rf"Execution time of {_WHAT} \(seconds\): (?P<seconds>\d+(?:\.\d+)?)")
_KIND = re.compile(_WHAT)
_LOGGER = "sluice.statistics.operations"


def report(records: Iterable[Record], over: float | None = None) -> list[Row]:
    """The rows, those that took most time in all first; only of operations of more than `over` seconds.

    The times of the unlogged ones aren't known.
    """
    times: dict[tuple[str, str], array[float]] = {}
    unlogged: dict[tuple[str, str], int] = {}
    for record in records:
        if (match := _LINE.fullmatch(record.message)) is not None:
            seconds = float(match["seconds"])
            if over is None or seconds > over:
                times.setdefault(_key(match), array("d")).append(seconds)
        elif record.module == _LOGGER and (left_out := LEFT_OUT.fullmatch(record.message)) is not None:
            kind = _KIND.fullmatch(left_out[2])
            if kind is not None:
                unlogged[_key(kind)] = unlogged.get(_key(kind), 0) + int(left_out[1])
    rows: list[Row] = []
    for key, seconds_of in sorted(times.items(), key=lambda item: -sum(item[1])):
        ordered = sorted(seconds_of)
        percentiles = (percentile(ordered, rank) for rank in (50, 95, 99))
        rows.append((*key, len(ordered), unlogged.get(key, 0), *percentiles, ordered[-1], sum(ordered)))
    return rows


def _key(match: re.Match[str]) -> tuple[str, str]:
    return match["operation"], match["route"] or "-"


def percentile(ordered: Sequence[float], rank: int) -> float:
    """The smallest of the values that `rank` percent of them don't exceed."""
    return ordered[ceil(len(ordered) * rank / 100) - 1]
