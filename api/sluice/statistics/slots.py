"""Slots: how the workers of one container find each other's statistics.

A worker claims the lowest free slot of a folder (on tmpfs) with a file lock that the kernel frees when it dies,
whoever started it, and writes its snapshot there. The next owner continues the counters, so the number of files is
the largest number of workers that ever ran at once.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from sluice.statistics.encoding import decode, encode
from sluice.statistics.snapshot import WorkerSnapshot

log = logging.getLogger(__name__)

_CLAIM = "claim.lock"


class Slot:
    """One worker's place; use `close` to give it up before the process ends.

    Where none can be had (a full folder, say), its `number` is the process id until `hold` succeeds.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.number = os.getpid()
        self._lock = -1
        self._closed = False
        os.register_at_fork(after_in_child=self.close)  # a child would keep the lock of a dead parent

    @classmethod
    def claim(cls, directory: Path | str) -> Slot:
        """A slot that is held. Raises `OSError` as `hold` does."""
        slot = cls(directory)
        slot.hold()
        return slot

    @classmethod
    def shared(cls, name: str) -> Slot:
        """A slot in `shared_folder(name)`; held, or where that can't be now, whoever publishes tries again."""
        slot = cls(shared_folder(name))
        with suppress(OSError):
            slot.hold()
        return slot

    def hold(self) -> None:
        """Claim the lowest free slot if there's none yet, or if it is gone since somebody emptied the folder.

        The folder is made if needed. Raises `OSError` when it can't be written or belongs to another user.
        """
        if self._closed or self._is_there():
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.directory.stat().st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "the folder belongs to another user", str(self.directory))
        with _claiming(self.directory, fcntl.LOCK_EX):
            number = 0
            while True:
                lock = os.open(self.directory / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if _try_lock(lock, fcntl.LOCK_EX):
                    break
                os.close(lock)
                number += 1
        if self._lock >= 0:
            os.close(self._lock)
        self.number, self._lock = number, lock

    def _is_there(self) -> bool:
        if self._lock < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock), os.stat(self.directory / f"{self.number}.lock"))
        except FileNotFoundError:
            return False

    def previous(self) -> WorkerSnapshot | None:
        """What the slot's former owner published last; None for a new slot or one that another version wrote."""
        if self._lock < 0:
            return None
        path = self.directory / f"{self.number}.json"
        found = _read(path)
        if found is None and path.exists():
            log.warning("%s was written by another version: its counters start from 0", path)
        return found

    def publish(self, snapshot: WorkerSnapshot) -> None:
        """Replace what the slot says, in one step. Raises `OSError`; what it said before then stays."""
        path = self.directory / f"{self.number}.json"
        draft = path.with_suffix(".draft")
        draft.write_bytes(encode(snapshot))
        draft.replace(path)

    def close(self) -> None:
        """Free the slot for good; what it says stays, for its counters."""
        self._closed = True
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def shared_folder(name: str) -> Path:
    """Where this user's processes on this machine that give the same name find each other: shared memory, if any."""
    memory = Path("/dev/shm")  # noqa: S108 that the folder isn't another user's, `hold` checks
    place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return place / f"sluice-{os.geteuid()}-{quote(name, safe='')}"


def read_all(directory: Path | str) -> list[WorkerSnapshot]:
    """Every slot's snapshot, lowest slot first; `alive` is False where no worker holds the slot."""
    directory = Path(directory)
    try:
        with _claiming(directory, fcntl.LOCK_SH):
            held = {int(path.stem): _is_held(path) for path in directory.glob("*.lock") if path.stem.isdecimal()}
    except (FileNotFoundError, PermissionError):  # nobody ever claimed one, or could again
        return []
    snapshots = []
    for number, alive in sorted(held.items()):
        snapshot = _read(directory / f"{number}.json")
        if snapshot is not None:
            snapshot.alive = alive
            snapshots.append(snapshot)
    return snapshots


@contextmanager
def _claiming(directory: Path, kind: int) -> Iterator[None]:
    """Whoever looks whether a slot is held locks it for an instant; nobody may claim meanwhile."""
    way = os.O_RDONLY if kind == fcntl.LOCK_SH else os.O_RDWR | os.O_CREAT  # to read, nothing has to be writable
    lock = os.open(directory / _CLAIM, way | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, kind)
        yield
    finally:
        os.close(lock)


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(path: Path) -> bool:
    lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _try_lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def _read(path: Path) -> WorkerSnapshot | None:
    try:
        return decode(path.read_bytes())
    except (FileNotFoundError, ValueError):  # ValueError: written by another version
        return None
