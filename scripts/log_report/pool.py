"""Pool events by kind and member."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scripts.log_report.records import Record
from scripts.log_report.table import Row

NEEDLES = (b"connection pool",)
HEADER = ("EVENT", "MEMBER", "COUNT", "FIRST", "LAST")
NOTHING = "No pool events."

_EVENT = re.compile(r"connection pool ?(?P<event>[^:;,(]*)(?:: (?P<cause>[A-Z]\w+)(?=:))?")
_MEMBER = re.compile(r"(?<![\w.\[-])(?:[A-Za-z0-9](?:[\w-]*\.)*[\w-]*|\[[0-9a-fA-F:]+\]):\d{2,5}(?!\d)")
_NOT_OURS = "app.observe.access_log"
"""Its lines quote whatever path a caller asked for."""


def report(records: Iterable[Record]) -> list[Row]:
    """The rows, in the order in which the events first happened. An event of several members counts for each."""
    spans: dict[tuple[str, str], tuple[int, str, str]] = {}
    for record in records:
        match = _EVENT.search(record.message)
        if match is None or record.module == _NOT_OURS:
            continue
        event = match["event"].strip() or "other"
        if match["cause"]:
            event += f" ({match['cause']})"
        members: list[str] = list(dict.fromkeys(_MEMBER.findall(record.message))) or ["-"]
        for member in members:
            count, first, last = spans.get((event, member), (0, record.time, record.time))
            spans[event, member] = count + 1, min(first, record.time), max(last, record.time)
    found = sorted(spans.items(), key=lambda item: item[1][1])
    return [(event, member, count, first, last) for (event, member), (count, first, last) in found]
