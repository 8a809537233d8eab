"""Errors by kind: the exception's class, else the problem's type or status, else the words of the message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from scripts.log_report.records import LEFT_OUT, Record
from scripts.log_report.table import Row

NEEDLES = (b"ERROR", b"CRITICAL", b" answered 5", b" answered 0 ", b"/problems/", b"were left out")
HEADER = ("KIND", "COUNT", "FIRST", "LAST", "EXAMPLE")
NOTHING = "No errors."

_LEVELS = ("ERROR", "CRITICAL")
_GROUP_PREFIX = re.compile(r"^ *(?:\| |\+ )")
_CLASS = re.compile(r"(?:[a-z_]\w*\.)*([A-Z]\w*)(?::|$)")
_NAMED_CLASS = re.compile(
    r"(?<!\w)([A-Z]\w*(?:Error|Exception|Timeout|Unavailable|Full|Exceeded|Failure|Interrupt|Exit))\b"
)
_PROBLEM = re.compile(r"/problems/[\w-]+")
_METHOD = re.compile(r"[A-Z]+")
_ANSWER = re.compile(r"(?P<route>[^)]*)\) answered (?P<status>\d+)(?: in [\d.]+ s)?")
"""Behind the last ` (`: a path, which comes before, may have any number of them."""
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|(?<!\w)[0-9a-f]{8,}\b|\d+")
_KIND_LENGTH = 60


@dataclass
class _Group:
    count: int
    first: str
    last: str
    example: str


def report(records: Iterable[Record]) -> list[Row]:
    """The rows, the most frequent kind first."""
    groups: dict[str, _Group] = {}
    for record in records:
        found = kind_of(record)
        if found is None:
            continue
        kind, count = found
        group = groups.get(kind)
        if group is None:
            groups[kind] = _Group(count, record.time, record.time, _example(record))
        else:
            group.count += count
            group.first, group.last = min(group.first, record.time), max(group.last, record.time)
    ranked = sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
    return [(kind, group.count, group.first, group.last, group.example) for kind, group in ranked]


def kind_of(record: Record) -> tuple[str, int] | None:
    """The kind of error that a record tells of, and how many of it; None if it tells of none."""
    left_out = LEFT_OUT.fullmatch(record.message)
    message, count = (left_out[2], int(left_out[1])) if left_out else (record.message, 1)
    if record.module == "app.observe.access_log":  # first: its lines quote whatever path a caller asked for
        refused = _refused(message)
        return (refused, count) if refused else None
    problem = _PROBLEM.search(message)
    if record.level not in _LEVELS and problem is None:
        return None
    if raised := _last_exception(record.traceback):
        return raised.partition(":")[0].rpartition(".")[2], count
    if named := _NAMED_CLASS.search(message):
        return named[1], count
    return (problem[0] if problem else _VARIABLE.sub("#", message)[:_KIND_LENGTH].strip()), count


def _refused(message: str) -> str | None:
    asked, _, answered = message.rpartition(" (")
    method, answer = asked.partition(" ")[0], _ANSWER.fullmatch(answered)
    if answer is None or not _METHOD.fullmatch(method) or not answer["status"].startswith(("5", "0")):
        return None
    status = "no answer" if answer["status"] == "0" else answer["status"]
    return f"{status} {method} {answer['route']}"


def _last_exception(traceback: list[str]) -> str | None:
    """The line of a traceback that names the exception which came out: the last one, or the group around them."""
    top = [
        number
        for number, line in enumerate(traceback)
        if line.startswith(("Traceback (", "  + Exception Group Traceback ("))
    ]
    for line in traceback[top[-1] + 1 if top else 0 :]:
        text = _GROUP_PREFIX.sub("", line) if line.startswith("  |") else line
        if _CLASS.match(text):
            return text
    return None


def _example(record: Record) -> str:
    raised = _last_exception(record.traceback)
    where = f" [request {record.request}]" if record.request != "-" else ""
    return record.message + (f": {raised}" if raised else "") + where
