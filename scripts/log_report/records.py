"""Log lines to records: a cheap test for a few bytes first, so that only what matters is parsed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) \| ([A-Z]+) \| worker=(\S+) "
    r"request=(\S+)(?: trace=\S+)? \| ([^:|]*):[^:|]*:\d+ - (.*)"
)
_INDENT = b"  "
"""Before each line of a record's traceback."""
_TRACEBACK = b"Traceback (most recent call last):"
"""Begins one that wasn't logged: of a process that died before it could, say."""


@dataclass(slots=True)
class Record:
    """One record. `time` as `2026-11-23 01:49:00.123`, in the time zone of whoever wrote it."""

    time: str
    level: str
    worker: str
    request: str
    module: str
    message: str
    traceback: list[str] = field(default_factory=list, kw_only=True)


@dataclass(slots=True)
class Tally:
    """How many lines were read, and how many of them belong to no record, the first of which is kept."""

    lines: int = 0
    strange: int = 0
    first_strange: tuple[int, str] | None = None

    def add_strange(self, line: bytes) -> None:
        self.strange += 1
        if self.first_strange is None:
            self.first_strange = self.lines, line.decode("utf-8", "replace").rstrip("\r\n")


def read(lines: Iterable[bytes], needles: tuple[bytes, ...], tally: Tally) -> Iterator[Record]:
    """The records whose line holds one of these texts, each with its traceback; counts every line in `tally`."""
    current: Record | None = None
    after_record = in_traceback = False
    for line in lines:
        tally.lines += 1
        if _begins_record(line):
            if current is not None:
                yield current
            current, after_record, in_traceback = None, True, False
            if any(needle in line for needle in needles):
                current = _parse(line)
                if current is None:
                    tally.add_strange(line)
        elif after_record and line.startswith(_INDENT):
            if current is not None:
                current.traceback.append(line.removeprefix(_INDENT).decode("utf-8", "replace").rstrip("\r\n"))
        elif in_traceback or line.startswith(_TRACEBACK):
            after_record, in_traceback = False, True
        elif line.strip():
            after_record = False
            tally.add_strange(line)
    if current is not None:
        yield current


def _begins_record(line: bytes) -> bool:
    if line[:2] == b'{"':
        return line.rstrip().endswith(b"}")
    return line[23:26] == b" | " and line[:2].isdigit()


def _parse(line: bytes) -> Record | None:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if text.startswith("{"):
        return _parse_json(text)
    match = _TEXT.fullmatch(text)
    return Record(*match.groups()) if match else None


def _parse_json(text: str) -> Record | None:
    try:
        fields = json.loads(text)
        return Record(
            fields["time"].replace("T", " ")[:23],
            fields["level"],
            fields["worker"],
            fields["request"],
            fields["module"],
            fields["message"],
            traceback=fields.get("exception", "").splitlines(),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
