"""Talk to this stack's own supervisord: start it, start and stop its programs, end it. Standard library only."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stack.home import Home, StackError

LOST = (OSError, xmlrpc.client.Error, http.client.HTTPException)
"""What a call raises when the process manager is gone or doesn't answer."""
RUNNING = "RUNNING"
SETTLED = (RUNNING, "FATAL", "BACKOFF")
UP = (RUNNING, "STARTING", "BACKOFF")
DOWN = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")

CALLED = {"api": "the API"}
"""What people call a program, where that isn't its name."""

OUTLIVED = ("api",)
"""Programs that are started again beside their own workers, which serve until the next ones do."""

STOP_SECONDS = 7_400
"""Longer than any program gets; supervisord kills what doesn't end in time."""
ANSWER_SECONDS = 10


class _Connection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, _: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._timeout)


class Supervisor:
    """The process manager of one stack, running or not."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def _calls(self, timeout: float) -> Any:
        transport = _Transport(self._home.socket, timeout)
        return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    @property
    def _rpc(self) -> Any:
        return self._calls(STOP_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether it answers. Raises `StackError` for one that is there and says nothing: it may have much to run."""
        try:
            self._calls(ANSWER_SECONDS).getState()
        except TimeoutError:
            raise StackError(f"the process manager has said nothing for {ANSWER_SECONDS} s; down.sh ends it") from None
        except LOST:
            return False
        return True

    def start(self, environment: Mapping[str, str]) -> None:
        """Start supervisord in this environment, or let the running one read a changed configuration."""
        if self.alive:
            self._reread()
            return
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._home.supervisor)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(f"supervisord does not start: {(done.stderr or done.stdout).strip()}")
        wait_until(lambda: self.alive, 10, "supervisord does not answer")

    def _reread(self) -> None:
        added, changed, removed = self._rpc.reloadConfig()[0]
        before = self.states()
        for name in [*changed, *removed]:
            if name in changed and name in OUTLIVED and before.get(name) == RUNNING:
                self._leave_workers(name)
            self._rpc.stopProcessGroup(name)
            self._rpc.removeProcessGroup(name)
        for name in [*changed, *added]:
            self._rpc.addProcessGroup(name)
            if before.get(name) == RUNNING:  # at once: what it depends on runs as well
                self._rpc.startProcess(name, False)

    def _leave_workers(self, name: str) -> None:
        """End a program's first process alone. It gets no time to hand the order on to its workers, which serve on as
        those of one that was killed do; and it's ordered first, so that it isn't started again as it was."""
        if pid := self.pid(name):
            with suppress(ProcessLookupError, xmlrpc.client.Fault):  # it has ended by itself
                os.kill(pid, signal.SIGSTOP)
                try:
                    self._rpc.stopProcess(name, False)
                finally:
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self._all_in(DOWN, (name,)), ANSWER_SECONDS, f"{name} does not end")

    def reload(self, name: str) -> None:
        """Let a program read its configuration again (SIGHUP)."""
        self._rpc.signalProcess(name, "HUP")

    def states(self) -> dict[str, str]:
        """Each program's state (`RUNNING`, `STARTING`, `BACKOFF`, `FATAL`, …)."""
        return {info["name"]: info["statename"] for info in self._rpc.getAllProcessInfo()}

    def pid(self, name: str) -> int:
        """A program's process id; 0 where it doesn't run."""
        pid: int = self._rpc.getProcessInfo(name)["pid"]
        return pid

    def launch(self, *names: str) -> None:
        """Start those that don't run, and wait until they stay up. Raises `StackError` with the last words of one."""
        # A script that was interrupted has told some to stop.
        wait_until(
            lambda: not self._any_in(("STOPPING",), names), STOP_SECONDS, f"one of {', '.join(names)} does not end"
        )
        states = self.states()
        for name in names:
            if states[name] == "BACKOFF":  # it failed, and is to be tried again some time
                with suppress(xmlrpc.client.Fault):
                    self._rpc.stopProcess(name)
            if states[name] in (*DOWN, "BACKOFF"):
                self._rpc.startProcess(name, False)
        wait_until(lambda: self._all_in(SETTLED, names), 30, f"one of {', '.join(names)} does not start")
        for name in names:
            if self.states()[name] != RUNNING:
                self._rpc.stopProcess(name)
                raise self.failed(name)

    def end(self, *names: str) -> None:
        """Stop those that run, and wait for their end. Raises `StackError`."""
        for name, state in self.states().items():
            if name in names and state in UP:
                with suppress(xmlrpc.client.Fault):  # it has ended by itself
                    self._rpc.stopProcess(name, False)
        wait_until(lambda: self._all_in(DOWN, names), STOP_SECONDS, f"one of {', '.join(names)} does not end")

    def _all_in(self, wanted: tuple[str, ...], names: tuple[str, ...]) -> bool:
        states = self.states()
        return all(states[name] in wanted for name in names)

    def _any_in(self, wanted: tuple[str, ...], names: tuple[str, ...]) -> bool:
        states = self.states()
        return any(states[name] in wanted for name in names)

    def failed(self, name: str) -> StackError:
        """What to raise for a program that ends instead of serving, however soon."""
        return StackError(f"{CALLED.get(name, name)} does not start: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The last line that a program wrote, and where there are more."""
        for path in (self._home.logs / f"{name}.out", self._home.logs / f"{name}.log"):
            if path.exists() and (lines := path.read_text(errors="replace").strip().splitlines()):
                return f"{lines[-1]} (see {path})"
        return "it said nothing"

    def stop(self) -> None:
        """Stop every program, the proxy first and the database last, then supervisord itself."""
        front = ("prometheus", "nginx-exporter", "nginx")
        self.end(*front)
        self.end("api")
        self.end(*self.states())
        self._rpc.shutdown()
        wait_until(lambda: not self.alive, 30, "supervisord does not end")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises `StackError` when the condition doesn't hold in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise StackError(f"{what} (waited {seconds:.0f} s)")
        time.sleep(0.1)
