"""Talk to this stack's own supervisord: start it, start and stop its programs, end it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layout import Layout, StackError
from supervisor.xmlrpc import SupervisorTransport

RUNNING = "RUNNING"
DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


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
        done = subprocess.run(command, capture_output=True, text=True)
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

    def launch(self, name: str) -> None:
        """Start one program if it doesn't run, and wait until it stays up. Raises `StackError` with its last words."""
        if self.states()[name] in DOWN:
            self._rpc.startProcess(name, False)
        wait_until(lambda: self.states()[name] in (RUNNING, "FATAL", "BACKOFF"), 30, f"{name} does not start")
        if self.states()[name] != RUNNING:
            self._rpc.stopProcess(name)
            raise StackError(f"{name} does not start: {self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        for path in (self._layout.logs / f"{name}.out", self._layout.logs / f"{name}.log"):
            if path.exists() and (lines := path.read_text(errors="replace").strip().splitlines()):
                return f"{lines[-1]} (see {path})"
        return "it said nothing"

    def stop(self) -> None:
        """Stop every program, the proxy first and the database last, then supervisord itself."""
        pid = int(self._rpc.getPID())
        order = ["prometheus", "nginx-exporter", "nginx", "api"]
        names = self.states()
        for name in [*order, *sorted(set(names) - set(order))]:
            if names.get(name) not in (None, *DOWN):
                self._rpc.stopProcess(name)
        self._rpc.shutdown()
        wait_until(lambda: not _lives(pid), 30, "supervisord does not end")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises `StackError` when the condition doesn't hold in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise StackError(f"{what} (waited {seconds:.0f} s)")
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
