"""The values behind prometheus_client's metrics, for workers that answer for each other.

A metric may be defined, and even counted, when a module is imported: before there's a loop or a slot, or in a master
that only forks. So a value is kept in memory until this process has a slot, and from then on in the slot's file, where
every worker reads it. A slot's next owner goes on with its counters, and resets its gauges.

What was counted before a fork goes to the first child, and so is counted once. What finds no room in the file stays in
memory until there is some. Nothing here costs a file before there is a value.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from app.observe.metric_files import make_empty, make_room, opened, path_of

log = logging.getLogger(__name__)


class SlotValue:
    """One number of a metric, as prometheus_client asks for it (`prometheus_client.values.MutexValue` is its own)."""

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        self.is_gauge = typ == "gauge"
        self.kind = f"{typ}_{multiprocess_mode}" if self.is_gauge else typ
        self.key: str = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
        self.number = 0.0
        self.time = 0.0
        self.file: MmapedDict | None = None
        with _lock:
            _slot.add(self)

    def inc(self, amount: float) -> None:
        with _lock:
            self.number += amount
            self.time = 0.0
            self.write()

    def set(self, value: float, timestamp: float | None = None) -> None:
        with _lock:
            self.number = value
            self.time = timestamp or 0.0
            self.write()

    def get(self) -> float:
        return self.number

    def write(self) -> None:
        if self.file is not None:
            self.file.write_value(self.key, self.number, self.time)  # type: ignore[no-untyped-call]

    def set_exemplar(self, exemplar: object) -> None:
        """Exemplars are not kept: prometheus_client knows none in files."""

    def get_exemplar(self) -> None:
        return None


class _Slot:
    """Where this process's values are kept: nowhere but in memory until it's taken."""

    def __init__(self) -> None:
        self.values: WeakSet[SlotValue] = WeakSet()
        self.place: tuple[Path, int] | None = None
        self.in_memory: dict[SlotValue, None] = {}
        """Those that aren't in a file (yet)."""
        self._files: dict[str, MmapedDict] = {}

    def add(self, value: SlotValue) -> None:
        self.values.add(value)
        self.in_memory[value] = None
        if self.place is not None:
            try:
                self._into_file(value, *self.place)
            except OSError:  # `keep` tries again, and says so
                return

    def take(self, directory: Path, number: int) -> None:
        """Go over to this slot's files, also where they are ours and somebody has deleted them. Raises `OSError`."""
        if self.place == (directory, number) and all(path_of(directory, kind, number).exists() for kind in self._files):
            return
        self.leave()
        directory.mkdir(exist_ok=True)
        for former in directory.glob(f"gauge_*_{number}.db"):
            make_empty(former)
        self.place = (directory, number)

    def write_all(self) -> None:
        """Move what is in memory to the files. Raises `OSError` where there is no room; the rest stays."""
        if self.place is not None:
            for value in list(self.in_memory):
                self._into_file(value, *self.place)

    def leave(self) -> None:
        """Close the files. What they count is theirs; gauges go on."""
        self.place = None
        for value in self.values:
            if value.file is not None:
                value.file = None
                self.in_memory[value] = None
                if not value.is_gauge:
                    value.number = 0.0
        for file in self._files.values():
            file.close()  # type: ignore[no-untyped-call]
        self._files = {}

    def forget_counts(self) -> None:
        for value in self.in_memory:
            if not value.is_gauge:
                value.number = 0.0

    def _into_file(self, value: SlotValue, directory: Path, number: int) -> None:
        path = path_of(directory, value.kind, number)
        file = self._files.get(value.kind)
        if file is None:
            file = self._files[value.kind] = opened(path)
        make_room(path, value.key)
        before, _ = file.read_value(value.key)  # type: ignore[no-untyped-call]
        if not value.is_gauge:
            value.number += before
        value.file = file
        value.write()
        del self.in_memory[value]


_lock = Lock()
_slot = _Slot()
_complete = True


def install() -> None:
    """Let metrics that are defined from now on be kept so; prometheus_client's own would know this process only."""
    values.ValueClass = SlotValue


def keep(directory: Path, slot: int) -> None:
    """Keep this process's values in the files of this slot; called again and again, since they may be deleted, or the
    folder full. Logs what can't be done."""
    global _complete
    before, failure = _complete, None
    with _lock:
        try:
            _slot.take(directory, slot)
            _slot.write_all()
        except OSError as error:
            failure = error
    _complete = failure is None
    if before and failure:  # outside the lock: whoever handles the line may count it
        log.error("metrics aren't written, or not all of them: %s", failure)
    elif not before and not failure:
        log.warning("metrics are written again")


def leave() -> None:
    """Give the slot's files up; they stay, for its next owner. What is counted from now on waits for another slot."""
    with _lock:
        _slot.leave()


def complete() -> bool:
    """Whether everything that this process counts can be read by the others."""
    return _complete and _slot.place is not None and not _slot.in_memory


def _forked() -> None:
    """In a child, whose parent goes on with its own slot."""
    if _slot.place is not None:
        _slot.leave()
    _lock.release()


def _has_forked() -> None:
    """In the parent: without a slot, it has given what it had counted to the child."""
    if _slot.place is None:
        _slot.forget_counts()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_child=_forked, after_in_parent=_has_forked)
