"""A native stack's folder: all that it takes to find the stack and to stop it. Standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from stack.output import say

ROOT = Path(__file__).resolve().parents[1]
STACK = "SLUICE_STACK"
"""In the environment of each of a stack's processes: its home."""


class StackError(Exception):
    """Why the stack can't be started or stopped, in a sentence for people."""


@dataclass(frozen=True)
class Home:
    """Everything that a stack writes is below `home`, but for the statistics on shared memory."""

    home: Path

    @staticmethod
    def folder() -> Path:
        """`SLUICE_HOME`, else `.sluice` in the repository."""
        return Path(os.environ.get("SLUICE_HOME") or ROOT / ".sluice").resolve()

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def mongod(self) -> Path:
        return self.home / "bin" / "mongod"

    @property
    def supervisor(self) -> Path:
        return self.home / "supervisord.conf"

    @cached_property
    def socket(self) -> Path:
        """Supervisor's control socket; not below `home`, whose path may be too long for a socket's."""
        return self.shared / "supervisor.sock"

    @cached_property
    def shared(self) -> Path:
        """The folder on shared memory, named after `home`; made by `make_shared`."""
        base = Path("/dev/shm")  # noqa: S108 checked to be ours
        name = f"sluice-native-{os.getuid()}-{hashlib.sha256(str(self.home).encode()).hexdigest()[:12]}"
        return (base if base.is_dir() else self.home) / name

    def make_shared(self) -> None:
        """Make that folder. Raises `StackError` as `check_shared` does."""
        self.shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_shared()

    def check_shared(self) -> None:
        """Raises `StackError` for a folder that another user made or may change: its name can be guessed."""
        try:
            found = self.shared.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StackError(f"{self.shared}: allowed is a folder that this user owns and nobody else may change")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One at a time starts, changes or stops this stack; the others wait. The kernel frees the lock of who is
        killed."""
        self.home.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.home, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another script that is at work in {self.home}")
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
