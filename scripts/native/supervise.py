"""Talk to this stack's own supervisord: start it, start and stop its programs, end it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from install import find
from layout import Layout, StackError
from programs import SETTINGS, STACK
from supervisor.xmlrpc import SupervisorTransport

RUNNING = "RUNNING"
NOT_PASSED_ON = SETTINGS | {"PYTHONPATH"}
SETTLED = (RUNNING, "FATAL", "BACKOFF")
UP = (RUNNING, "STARTING", "BACKOFF")
DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")

STOP_SECONDS = 3_700
"""Longer than any program gets; supervisord kills what doesn't end in time."""


class Supervisor:
    """The process manager of one stack, running or not."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def _rpc(self) -> Any:
        """A new connection for each call: the transport's own doesn't survive a failed one."""
        transport = SupervisorTransport(None, None, f"unix://{self._layout.socket}")
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    @property
    def alive(self) -> bool:
        try:
            self._rpc.getState()
        except (OSError, xmlrpc.client.Error):
            return False
        return True

    def start(self) -> None:
        """Start supervisord, or let the running one read a changed configuration."""
        if self.alive:
            self._reload()
            return
        command = [str(Path(sys.executable).parent / "supervisord"), "-c", str(self._layout.supervisor)]
        environment = {name: value for name, value in os.environ.items() if name.upper() not in NOT_PASSED_ON}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(f"supervisord does not start: {(done.stderr or done.stdout).strip()}")
        wait_until(lambda: self.alive, 10, "supervisord does not answer")

    def _reload(self) -> None:
        added, changed, removed = self._rpc.reloadConfig()[0]
        for name in [*changed, *removed]:
            self._rpc.stopProcessGroup(name)
            self._rpc.removeProcessGroup(name)
        for name in [*changed, *added]:
            self._rpc.addProcessGroup(name)

    def states(self) -> dict[str, str]:
        """Each program's state (`RUNNING`, `STARTING`, `BACKOFF`, `FATAL`, …)."""
        return {info["name"]: info["statename"] for info in self._rpc.getAllProcessInfo()}

    def pids(self) -> set[int]:
        """The process ids of all programs and their workers."""
        found = {int(info["pid"]) for info in self._rpc.getAllProcessInfo() if info["pid"]}
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(int(self._rpc.getPID())).children(recursive=True)
            found |= {child.pid for child in children}
        return found

    def launch(self, *names: str) -> None:
        """Start those that don't run, and wait until they stay up. Raises `StackError` with the last words of one."""
        states = self.states()
        for name in names:
            if states[name] in DOWN:
                self._rpc.startProcess(name, False)
        wait_until(lambda: self._all_in(SETTLED, names), 30, f"one of {', '.join(names)} does not start")
        for name in names:
            if self.states()[name] != RUNNING:
                self._rpc.stopProcess(name)
                raise StackError(f"{name} does not start: {self._last_words(name)}")

    def _end(self, *names: str) -> None:
        for name, state in self.states().items():
            if name in names and state in UP:
                with suppress(xmlrpc.client.Fault):  # it has ended by itself
                    self._rpc.stopProcess(name, False)
        wait_until(lambda: self._all_in(DOWN, names), STOP_SECONDS, f"one of {', '.join(names)} does not end")

    def _all_in(self, wanted: tuple[str, ...], names: tuple[str, ...]) -> bool:
        states = self.states()
        return all(states[name] in wanted for name in names)

    def _last_words(self, name: str) -> str:
        for path in (self._layout.logs / f"{name}.out", self._layout.logs / f"{name}.log"):
            if path.exists() and (lines := path.read_text(errors="replace").strip().splitlines()):
                return f"{lines[-1]} (see {path})"
        return "it said nothing"

    def stop(self) -> None:
        """Stop every program, the proxy first and the database last, then supervisord itself."""
        pid = int(self._rpc.getPID())
        front = ("prometheus", "nginx-exporter", "nginx")
        self._end(*front)
        self._end("api")
        self._end(*self.states())
        self._rpc.shutdown()
        wait_until(lambda: not psutil.pid_exists(pid), 30, "supervisord does not end")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises `StackError` when the condition doesn't hold in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise StackError(f"{what} (waited {seconds:.0f} s)")
        time.sleep(0.1)


def own_processes(layout: Layout) -> list[psutil.Process]:
    """This stack's processes but for supervisord; those of other stacks are told apart by their home."""
    return [process for process in psutil.process_iter() if _is_own(process, layout)]


def end_leftovers(layout: Layout) -> int:
    """End what outlived a supervisord that was killed; returns how many processes."""
    left = own_processes(layout)
    for process in left:
        process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=30)
    for process in stubborn:
        process.kill()
    return len(left)


def _is_own(process: psutil.Process, layout: Layout) -> bool:
    try:
        if process.name() == "nginx":  # writes its title over its environment; its workers end with it
            return f"master process {find('nginx')} -p {layout.home}/nginx " in " ".join(process.cmdline())
        return process.environ().get(STACK) == str(layout.home)
    except (psutil.Error, OSError):  # another user's, or gone
        return False
