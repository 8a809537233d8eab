"""Request counts and durations, in files that all workers of the container read.

The files are prometheus_client's, mapped into memory. Writing to a mapped page that a full tmpfs can't provide is no
error but a signal (SIGBUS) that ends the worker: here every page is provided before it is written, and where that
fails, requests are served without being counted.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.mmap_dict import _INITIAL_MMAP_SIZE, MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_fastapi_instrumentator.metrics import Info

from app.serving import worker_slot

log = logging.getLogger(__name__)

REQUESTS = "http_requests_total"
DURATION = "http_request_duration_seconds"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LOOK_EVERY = 1.0
"""Seconds between two looks whether the files are still there, or can be had by now."""


class HttpFigures:
    """Counts this worker's requests; a slot's next owner continues its counters.

    Its files are named by the worker's slot: never open them before a fork.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = directory / "http"
        self._counter: _Counter | None = None
        self._counting = True
        self._next_look = 0.0

    def check(self) -> bool:
        """Whether all requests are counted; False while the folder is full or away.

        Opens the files, again and again until it succeeds, and anew where somebody has deleted them.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            try:
                self._look()
            except OSError as error:
                self._fail(error)
        return self._counting

    def count(self, info: Info) -> None:
        """One request. Never raises `OSError`: what can't be counted isn't."""
        self.check()
        if self._counter is not None:
            try:
                self._counter.count(info)
            except OSError as error:  # new labels, and no room for them
                self._fail(error)

    def register(self, registry: CollectorRegistry) -> None:
        """Let the registry export every worker's figures."""
        if self._files.is_dir():
            MultiProcessCollector(registry, str(self._files))  # type: ignore[no-untyped-call]

    def _look(self) -> None:
        slot = worker_slot.claim(self._directory)
        slot.hold()
        if self._counter is None or not self._counter.is_there(self._files, slot.number):
            self._files.mkdir(exist_ok=True)
            if self._counter is not None:
                self._counter.close()
                self._counter = None
            self._counter = _Counter(self._files, slot.number)
        if not self._counting:
            _try_for_room(self._files / f"{slot.number}.draft")
            self._counting = True
            log.warning("requests are counted again")

    def _fail(self, error: OSError) -> None:
        if self._counting:
            log.error("requests aren't counted, or not all of them: %s", error)
        self._counting = False


class _Counter:
    """A slot's open files. Raises `OSError` where there's no room for them."""

    def __init__(self, files: Path, slot: int) -> None:
        self._paths = [files / f"{kind}_{slot}.db" for kind in ("counter", "histogram")]
        for path in self._paths:
            _prepare(path)
        mark_process_dead(slot, str(files))  # type: ignore[no-untyped-call]
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)
        values.MmapedDict = ProvidedDict  # type: ignore[attr-defined, assignment]
        self._values = values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()  # only to be made with: what counts are the files
        self._requests = Counter(REQUESTS, "Requests.", ("method", "status", "handler"), registry=registry)
        self._duration = Histogram(
            DURATION, "Seconds until the answer was sent.", ("method", "handler"), buckets=BUCKETS, registry=registry
        )
        self._children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def count(self, info: Info) -> None:
        labels = (info.method, info.modified_status, info.modified_handler)
        found = self._children.get(labels)  # `labels()` costs as much as counting
        if found is None:
            found = (self._requests.labels(*labels), self._duration.labels(info.method, info.modified_handler))
            self._children[labels] = found
        found[0].inc()
        found[1].observe(info.modified_duration)

    def is_there(self, files: Path, slot: int) -> bool:
        return self._paths[0] == files / f"counter_{slot}.db" and all(path.exists() for path in self._paths)

    def close(self) -> None:
        self._values.close_all_files()


class ProvidedDict(MmapedDict):
    """prometheus_client's file, with every page provided before it is mapped. Raises `OSError` when there's no room."""

    def __init__(self, filename: str) -> None:
        _prepare(Path(filename))
        super().__init__(filename)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        needed = self._used + len(key.encode()) + 32  # with its length, padding, value and time
        capacity = self._capacity
        while capacity < needed:
            capacity *= 2
        if capacity > self._capacity:
            _provide(Path(self._fname), capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _prepare(path: Path) -> None:
    """Make the file, or fill the holes of the one that's there. Raises `OSError`."""
    if path.exists() and path.stat().st_size > 0:
        _provide(path, max(_INITIAL_MMAP_SIZE, path.stat().st_size))
        return
    draft = path.with_suffix(".draft")  # since who reads must find it whole
    try:
        _provide(draft, _INITIAL_MMAP_SIZE)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _try_for_room(draft: Path) -> None:
    try:
        _provide(draft, _INITIAL_MMAP_SIZE)
    finally:
        draft.unlink(missing_ok=True)


def _provide(path: Path, size: int) -> None:
    """Make the file at least so large, without holes."""
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            file.write(bytes(max(0, size - file.tell())))
