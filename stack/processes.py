"""A stack's processes, as /proc has them, and how they are ended. Standard library only."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stack.home import STACK

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One that ran when it was looked for; `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    started: str
    user: int
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        return Path(self.command[0].partition(":")[0]).name

    @property
    def runs(self) -> bool:
        """Whether it still does; one that has ended and that its parent never asks for doesn't."""
        state = _state(self.pid)
        return state is not None and state[1] == self.started

    def send(self, number: int) -> None:
        if self.runs:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def variable(self, name: str) -> str | None:
        """From the environment that it was started with; None if it isn't there or may not be read."""
        for each in _read(self.pid, "environ").split(b"\0"):
            key, _, value = each.partition(b"=")
            if key == name.encode():
                return os.fsdecode(value)
        return None

    def has_open(self, *files: Path) -> bool:
        """Whether it has one of these open, deleted or not; False also where that may not be read."""
        with suppress(OSError):
            for descriptor in (PROC / str(self.pid) / "fd").iterdir():
                with suppress(OSError):
                    if Path(os.readlink(descriptor).removesuffix(" (deleted)")) in files:
                        return True
        return False

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def of_stack(home: Path) -> list[Process]:
    """The stack's processes, its process manager included; what another user has started as far as it can be known."""
    return [process for process in _all() if _is_of(process, home)]


def orphans(processes: Sequence[Process], manager: Process) -> list[Process]:
    """Those that the process manager knows nothing of: somebody killed what had started them."""
    known = {manager.pid}
    while more := {each.pid for each in processes if each.parent in known} - known:
        known |= more
    return [each for each in processes if each.pid not in known]


def since_boot() -> float:
    """Seconds, those in which the machine slept too: the clock by which processes are started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def started(pid: int) -> float | None:
    """When this process was started, in seconds since the machine was booted; None if it has ended."""
    state = _state(pid)
    return None if state is None else int(state[1]) / os.sysconf("SC_CLK_TCK")


def at_work(home: Path) -> list[Process]:
    """The up.sh that are at work on this stack, but for this process."""
    return [
        process
        for process in _all()
        if process.pid != os.getpid()
        and (_runs_up(process) or ("-m", "stack.up") in itertools.pairwise(process.command))
        and _home(process) == home
    ]


def _runs_up(process: Process) -> bool:
    """Whether it is the script itself, which installs packages before it becomes `stack.up`."""
    return process.name == "bash" and any(Path(word).name == "up.sh" for word in process.command[1:2])


def _home(process: Process) -> Path | None:
    """What its `SLUICE_HOME` means where it runs, links followed; None for a process that can't be asked."""
    try:
        folder = Path(os.readlink(PROC / str(process.pid) / "cwd"))
    except OSError:
        return None
    given = process.variable("SLUICE_HOME")
    if given:
        return (folder / given).resolve()
    script = next((folder / word for word in process.command[1:2] if Path(word).name == "up.sh"), None)
    return (script.resolve().parents[1] / ".sluice").resolve() if script is not None else None


def end(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Ask them to end, kill those that haven't after so many seconds; returns those that are there even then."""
    left = list(processes)
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        for process in left:
            process.send(number)
        limit = time.monotonic() + patience
        while (left := [process for process in left if process.runs]) and time.monotonic() < limit:
            time.sleep(0.05)
    return left


def _is_of(process: Process, home: Path) -> bool:
    """Below a home there may be another stack's, or files of servers that are nobody's: where exactly a path leads
    matters."""
    if process.variable(STACK) == str(home) or str(home / "supervisord.conf") in process.command:
        return True
    if process.name == "nginx":  # writes its title over its environment
        title = f"{' '.join(process.command)} "
        return f" -p {home}/nginx " in title or process.has_open(
            home / "logs/nginx-access.log", home / "run/nginx-errors"
        )
    if process.user == os.geteuid():
        return False
    is_ours = process.name in ("mongod", "prometheus") or "gunicorn" in process.command
    paths = (f"{word.partition('=')[2] or word}/" for word in process.command)  # PATH, or --option=PATH
    own = tuple(f"{home}/{folder}/" for folder in ("data", "prometheus", "venv", "venv.d"))
    return is_ours and any(path.startswith(own) for path in paths)


def _all() -> list[Process]:
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        pid = int(folder.name)
        state = _state(pid)
        command = tuple(os.fsdecode(word) for word in _read(pid, "cmdline").rstrip(b"\0").split(b"\0"))
        if state is not None and command[0]:
            with suppress(OSError):
                found.append(Process(pid, *state, folder.stat().st_uid, command))
    return found


def _state(pid: int) -> tuple[int, str] | None:
    """Its parent, and when it was started, in the kernel's ticks; None if it has ended."""
    after_name = _read(pid, "stat").rpartition(b") ")[2].split()
    if not after_name or after_name[0] in (b"Z", b"X"):
        return None
    return int(after_name[1]), after_name[19].decode()


def _read(pid: int, file: str) -> bytes:
    try:
        return (PROC / str(pid) / file).read_bytes()
    except OSError:  # it's gone, or another user's
        return b""
