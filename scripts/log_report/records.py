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
LEFT_OUT = re.compile(r"(\d{1,18}) more of these lines in \d+ s were left out: (.*)")
"""What the service logs in place of the lines beyond its limit: how many, and their kind."""
_FIELDS = ("time", "level", "worker", "request", "module", "message")
_INDENT = b"  "
"""Before each line of a record's traceback."""
_COLOUR = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(
    rb"(\[pod/[^\]\s]+\] |[A-Za-z0-9][\w.-]* *\| )?"  # kubectl logs --prefix; docker compose logs
    rb"(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) )?"  # their --timestamps
    rb"(?:std(?:out|err) [FP] )?"  # the file of a container in Kubernetes
)
_TRACEBACK = b"Traceback (most recent call last):"
"""Begins one that wasn't logged: of a process that died before it could, say."""


@dataclass
class Record:
    """One record. `time` as `2026-11-23 01:49:00.123`, in the time zone of whoever wrote it."""

    time: str
    level: str
    worker: str
    request: str
    module: str
    message: str
    traceback: list[str] = field(default_factory=list)


@dataclass
class _Source:
    """One container's lines: the record that is being read, and whether its traceback, or one that nobody logged, goes
    on."""

    current: Record | None = None
    after_record: bool = False
    in_traceback: bool = False


@dataclass
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
    """The records whose line holds one of these texts, each with its traceback; counts every line in `tally`.

    Colours, and what Compose, Docker and kubectl put before a line, are taken off; their containers' lines may mix.
    """
    sources: dict[bytes, _Source] = {}
    for whole in lines:
        tally.lines += 1
        name, line = _without_prefix(whole)
        source = sources.setdefault(name, _Source())
        if _begins_record(line):
            if source.current is not None:
                yield source.current
            source.current, source.after_record, source.in_traceback = None, True, False
            if any(needle in line for needle in needles):
                source.current = _parse(line)
                if source.current is None:
                    tally.add_strange(whole)
        elif source.after_record and line.startswith(_INDENT):
            if source.current is not None:
                source.current.traceback.append(line[len(_INDENT) :].decode("utf-8", "replace").rstrip("\r\n"))
        elif source.in_traceback or line.startswith(_TRACEBACK):
            source.after_record, source.in_traceback = False, True
        elif line.strip():
            source.after_record = False
            tally.add_strange(whole)
    for source in sources.values():
        if source.current is not None:
            yield source.current


def _without_prefix(line: bytes) -> tuple[bytes, bytes]:
    """Who a line is of, as its prefix says (nothing where there is none), and the line as it was written."""
    if b"\x1b" in line:  # the service escapes those of its own
        line = _COLOUR.sub(b"", line)
    if line.startswith((b'{"', _INDENT)) or (line[:2].isdigit() and line[10:11] == b" "):
        return b"", line  # as our own lines begin
    prefix = _PREFIX.match(line)
    return (prefix[1] or b"", line[prefix.end() :]) if prefix else (b"", line)


def _begins_record(line: bytes) -> bool:
    if line[:2] == b'{"':
        return line.rstrip().endswith(b"}")
    return line[23:26] == b" | " and line[:2].isdigit()


def _parse(line: bytes) -> Record | None:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if text.startswith("{"):  # so that what is read of it, if anything, is an object
        return _parse_json(text)
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    time, level, worker, request, module, message = match.groups()
    return Record(time, level, worker, request, module, message)


def _parse_json(text: str) -> Record | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    texts = [fields.get(name) for name in _FIELDS]
    traceback = fields.get("exception", "")
    if not all(isinstance(text, str) for text in (*texts, traceback)):
        return None
    time, level, worker, request, module, message = texts
    return Record(time.replace("T", " ")[:23], level, worker, request, module, message, traceback.splitlines())
