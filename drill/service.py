"""The stack that is hurt: a native one in a folder and on ports of its own, with all that a fault needs to get at."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from app.settings.model import Settings
from drill import namespaces
from stack.home import ROOT
from stack.layout import Layout
from stack.mongod import find_mongod
from stack.supervise import Supervisor

Document = dict[str, Any]
WORKERS = 2
MOST_CONNECTIONS = 800
"""Of each member: more than the workers' pools may have, and few enough to be used up."""
STATISTICS, LOGS = 16, 256
"""MB that there is room for, in file systems of their own."""


_PORT = 'for word; do if [ "$last" = --port ]; then port=$word; fi; last=$word; done\n'


class DrillError(Exception):
    """Why a drill can't go on, in a sentence for people."""


@dataclass
class Service:
    """Started by `up`, ended by `down`. Its members take MongoDB's test commands, so that they can be told to fail."""

    folder: Path
    driver: str = "pymongo"
    alerts: dict[str, float] = field(default_factory=dict)
    """Those that its drills might raise, and when the last of these ended (monotonic seconds)."""

    def __post_init__(self) -> None:
        self.layout = Layout.on_free_ports(self.folder)
        self._settings: dict[str, str] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def furnish(self) -> None:
        """Make what `up` needs; whatever comes of it, `down` ends it."""
        mounts = map(str, self._mounts if namespaces.inside() else ())
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "drill.keeper", str(self.folder), *mounts],
            env=self._environment(dict(os.environ)),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.layout.mongod.parent.mkdir(parents=True, exist_ok=True)
        group = f'setpriv --regid "$port" --clear-groups "{find_mongod()}"' if namespaces.inside() else find_mongod()
        self.layout.mongod.write_text(
            f'#!/bin/sh\n{_PORT}exec {group} "$@" --setParameter enableTestCommands=1 --maxConns {MOST_CONNECTIONS}\n'
        )
        self.layout.mongod.chmod(0o755)
        if namespaces.inside():
            self.layout.make_shared()
            for folder, megabytes in self._mounts.items():
                folder.mkdir(parents=True)
                namespaces.mount(folder, megabytes)
            for port in self.members:  # a member that can't write its log ends, which is MongoDB's way
                (self.layout.logs / f"mongod-{port}.log").symlink_to(self.folder / f"mongod-{port}.log")

    # Its life

    def up(self, **settings: str) -> None:
        """Start it with these settings, and no other of the caller's, or change them. Raises `DrillError`."""
        if settings == self._settings:
            return
        self._settings = None
        ours = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name.upper() not in ours}
        given = {"WORKERS": str(WORKERS), "MAX_REQUESTS": "0", "STATS_CACHE_MS": "0"} | settings
        done = self._run("stack.up", "--detach", "--driver", self.driver, environment=kept | given)
        if done.returncode != 0:
            raise DrillError(f"the stack doesn't start: {done.stderr.strip() or done.stdout.strip()}")
        self._settings = settings

    def down(self) -> None:
        """End all of it. Raises `DrillError` where something is left."""
        problems = []
        for folder in self._mounts if namespaces.inside() else ():
            if folder.is_mount():
                try:
                    namespaces.unmount(folder)
                except (OSError, subprocess.SubprocessError) as error:
                    problems.append(f"{error}")
        done = self._run("stack.down", environment=dict(os.environ))
        if done.returncode != 0:
            problems.append(done.stderr.strip() or done.stdout.strip())
        elif self._keeper and self._keeper.stdin:
            with suppress(BrokenPipeError):
                self._keeper.communicate(b"done")
        if problems:
            raise DrillError(f"the stack in {self.folder} doesn't end: {'; '.join(problems)}")

    @property
    def statistics(self) -> Path:
        return self.layout.shared / "statistics"

    @property
    def _mounts(self) -> dict[Path, int]:
        return {self.statistics: STATISTICS, self.layout.logs: LOGS}

    def _run(self, module: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=240,
        )

    def _environment(self, given: dict[str, str]) -> dict[str, str]:
        return given | self.layout.environment | {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'api'}"}

    # Its parts

    @property
    def url(self) -> str:
        """Through nginx."""
        return f"http://127.0.0.1:{self.layout.http.number}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.layout.api.number}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.layout.prometheus.number}"

    @property
    def members(self) -> list[int]:
        """Their ports."""
        return [port.number for port in self.layout.mongo]

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.layout)

    def master(self) -> int:
        """The process id of Gunicorn's master."""
        return self.supervisor.pid("api")

    def workers(self) -> set[int]:
        """The process ids of Gunicorn's workers."""
        with suppress(psutil.NoSuchProcess):
            return {child.pid for child in psutil.Process(self.master()).children()}
        return set()

    def mongod(self, port: int) -> int:
        return self.supervisor.pid(f"mongod-{port}")

    def group(self, port: int) -> int:
        """The group that this member runs as in a network of its own, which tells its packets from others'."""
        return port

    def signal(self, number: int, *pids: int) -> None:
        """Raises `DrillError` for a process id of 0: such a program doesn't run, and to the system it's this group."""
        if not all(pids):
            raise DrillError("what shall be signalled doesn't run")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self, *ports: int) -> None:
        self.signal(signal.SIGSTOP, *map(self.mongod, ports))

    def thaw(self, *ports: int) -> None:
        self.signal(signal.SIGCONT, *map(self.mongod, ports))

    # Its members

    def member(self, port: int) -> MongoClient[Document]:
        """A client of this member alone, who may do everything."""
        password = (self.layout.secrets / "admin_password").read_text().strip()
        return MongoClient(
            "127.0.0.1", port, directConnection=True, username="admin", password=password, authSource="admin",
            serverSelectionTimeoutMS=2_000,
        )  # fmt: skip

    def primary(self, *, without: int | None = None) -> int | None:
        """The port of the member that takes writes now; `without`: one that isn't asked."""
        for port in self.members:
            if port == without:
                continue
            with suppress(PyMongoError):
                timeouts: Any = {"serverSelectionTimeoutMS": 300, "connectTimeoutMS": 300, "socketTimeoutMS": 300}
                with MongoClient[Document]("127.0.0.1", port, directConnection=True, **timeouts) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return port
        return None

    def documents(self) -> list[Document]:
        """All users, as the majority has them."""
        port = self.primary()
        if port is None:
            raise DrillError("there is no primary in the end")
        with self.member(port) as client:
            # Once a majority has this note, it has all that was written before.
            client.admin.command("appendOplogNote", 1, data={}, writeConcern={"w": "majority", "wtimeout": 30_000})
            users = client["sluice"].get_collection("users", read_concern=ReadConcern("majority"))
            return list(users.find())

    def term(self) -> int | None:
        """The number of the election that made the primary what it is; None where there's none."""
        port = self.primary()
        if port is None:
            return None
        with self.member(port) as client:
            return int(client.admin.command("replSetGetStatus")["term"])

    def forget(self) -> None:
        """Delete all users, for the next drill."""
        port = self.primary()
        if port is not None:
            with self.member(port) as client:
                client["sluice"]["users"].delete_many({})

    # Whether it is well

    async def wait_for_primary(self, *, without: int | None = None, seconds: float = 60) -> int:
        """Wait for one that isn't `without`; its port. Raises `DrillError`."""
        await self.until(lambda: self.primary(without=without) is not None, seconds, "there is no primary")
        port = self.primary(without=without)
        if port is None:
            raise DrillError("there is no primary any more")
        return port

    async def wait_until_whole(self, seconds: float = 90) -> None:
        """Wait for a primary, two secondaries and all workers, each ready. Raises `DrillError`."""

        def whole() -> bool:
            answer = self._ask("/health")
            return answer["status"] == "ok" and answer["workers"] == WORKERS and self.primary() is not None

        await self.until(whole, seconds, "the stack is not whole")

    async def wait_for_other_workers(self, old: set[int], seconds: float = 60) -> None:
        """Wait for as many workers as there shall be, none of them one of these. Raises `DrillError`."""

        def there() -> bool:
            stats = self._ask("/connection-stats")["connection_pool_stats"]
            pids = {worker["pid"] for worker in stats["workers"] if worker["ready"]}
            return len(pids) == WORKERS and not pids & old

        await self.until(there, seconds, "the workers are not replaced")

    def _ask(self, path: str) -> Any:
        """The JSON that nginx answers, whatever the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.layout.http.number, timeout=5)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    async def until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait for it; a failed request means not yet. Raises `DrillError`."""
        limit = time.monotonic() + seconds
        while True:
            with suppress(http.client.HTTPException, PyMongoError, psutil.Error, KeyError, ValueError, OSError):
                if await asyncio.to_thread(condition):
                    return
            if time.monotonic() > limit:
                raise DrillError(f"{otherwise} (waited {seconds:.0f} s)")
            await asyncio.sleep(0.05)
