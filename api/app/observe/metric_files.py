"""The files that workers keep their metrics' values in: prometheus_client's, mapped into memory, on tmpfs.

Writing to a mapped page that a full tmpfs can't provide is no error but a signal (SIGBUS) that ends the worker: here
every page is provided before it is written, and where that fails, `OSError` says so.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Collection, Iterable
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

SIZE = 65_536
"""Bytes of a new file; it doubles when they are used."""
_ENTRY = 32
"""Most bytes that a value takes beside its key: its length, padding, number and time."""


def path_of(directory: Path, kind: str, slot: int) -> Path:
    """Where the values of this kind (`counter`, `gauge_livesum` …) are, as prometheus_client's collector expects."""
    return directory / f"{kind}_{slot}.db"


def opened(path: Path) -> MmapedDict:
    """The file, made if it isn't there, with no page missing. Raises `OSError` when there's no room."""
    if path.exists() and path.stat().st_size > 0:
        _provide(path, max(SIZE, path.stat().st_size))  # another version may have left holes
    else:
        make_empty(path)
    try:
        return MmapedDict(str(path))  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, struct.error):
        log.warning("%s was written by another version, or cut off: its counters start from 0", path)
        make_empty(path)
        return MmapedDict(str(path))  # type: ignore[no-untyped-call]


def make_empty(path: Path) -> None:
    """Put a file without values there, in one step: who reads must find it whole. Raises `OSError`."""
    draft = path.with_suffix(".draft")
    try:
        _provide(draft, SIZE)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def make_room(path: Path, key: str) -> None:
    """Provide what the file needs to take one more value. Raises `OSError` when there's no room."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (used,) = struct.unpack("i", file.read(4))
    needed = used + len(key.encode()) + _ENTRY
    if size < needed:
        while size < needed:
            size *= 2
        _provide(path, size)


def _provide(path: Path, size: int) -> None:
    """Make the file at least so large, without holes."""
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            file.write(bytes(max(0, size - file.tell())))


class AllSlots(Collector):
    """Every worker's metrics: counters and histograms summed, gauges as their `multiprocess_mode` says.

    Those of slots that nobody has any more (`unowned`) still count, except for the gauges of living processes only.
    """

    def __init__(self, directory: Path, unowned: Collection[int]) -> None:
        self._directory = directory
        self._past = {path_of(directory, f"gauge_live{mode}", slot) for mode in _LIVE for slot in unowned}

    def collect(self) -> Iterable[Metric]:
        files = [str(path) for path in self._directory.glob("*.db") if path not in self._past]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


_LIVE = ("all", "min", "max", "sum", "mostrecent")
