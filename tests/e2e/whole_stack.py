"""The whole stack, started and stopped by the real scripts, in a folder and on ports of its own."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from stack.layout import Layout
from stack.mongod import find_mongod

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ \| worker=(\d+|-) request=\S+( trace=[0-9a-f]{32})?"
    r" \| [\w.]+:[\w<>]+:\d+ - .*"
)
TRACEBACK = re.compile(r"  .*")
LOCKS = ("api/requirements.lock", "scripts/requirements.lock")


class Stack:
    """One stack; its members are known by their ports."""

    def __init__(self, home: Path, *, venv: Path | None = None) -> None:
        """`venv`: packages to use, of another stack."""
        self.layout = Layout.on_free_ports(home)
        self.environment = {
            **os.environ,
            **self.layout.environment,
            "SLUICE_RUN": "native",  # also where a Docker engine answers
            "STATS_CACHE_MS": "0",  # each answer tells of its own instant
            "CONNECTION_BUDGET": "1000",  # a metric tells of it
        }
        lend_venv(home, venv)
        lend_mongod(home)

    @property
    def home(self) -> Path:
        return self.layout.home

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.layout.http.number}"

    @property
    def api_url(self) -> str:
        """Past nginx."""
        return f"http://127.0.0.1:{self.layout.api.number}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.layout.prometheus.number}"

    @property
    def statistics(self) -> Path:
        return self.layout.shared / "statistics"

    @property
    def api_log(self) -> Path:
        return self.layout.logs / "api.log"

    @cached_property
    def http(self) -> httpx.Client:
        """Through nginx."""
        return httpx.Client(base_url=self.url, timeout=20)

    # The scripts

    def script(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one of scripts/ on this stack, from a folder that isn't the repository's."""
        return subprocess.run(
            [str(ROOT / "scripts" / name), *arguments],
            env=self.environment | environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def up(self, *arguments: str, **environment: str) -> None:
        done = self.script("up.sh", "-d", *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def control(self, action: str, *programs: str) -> str:
        """`supervisorctl`, as a person would use it."""
        command = [str(self.home / "venv/bin/supervisorctl"), "-s", f"unix://{self.layout.socket}", action, *programs]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()

    def pid(self, program: str) -> int:
        return int(self.control("pid", program))

    def nginx(self) -> int:
        """The process id of nginx's master, which has another one's before it that limits its error log."""
        return int((self.home / "run/nginx.pid").read_text())

    def processes(self) -> list[psutil.Process]:
        """Everything that this stack started or whose command line names its folder, nginx's workers included."""

        def is_ours(process: psutil.Process) -> bool:
            try:
                named = str(self.home) in " ".join(process.cmdline())
                orphan = process.name() == "nginx" and any(str(self.home) in file.path for file in process.open_files())
                return named or orphan or process.environ().get("SLUICE_STACK") == str(self.home)
            except psutil.Error:
                return False

        return [process for process in psutil.process_iter() if is_ours(process)]

    def torn_lines(self) -> list[str]:
        """Lines of the API's log that aren't whole, tracebacks apart."""
        lines = self.api_log.read_text().splitlines() if self.api_log.exists() else []
        return [line for line in lines if not LINE.fullmatch(line) and not TRACEBACK.fullmatch(line)]

    # The API

    def stats(self) -> dict[str, Any]:
        answer = self.http.get("/connection-stats")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["connection_pool_stats"]
        return found

    def workers(self) -> dict[int, int]:
        """Each live worker's slot and process id, as the statistics have them."""
        return {worker["worker"]: worker["pid"] for worker in self.stats()["workers"]}

    def wait_for_workers(self, *, without: set[int] | None = None) -> dict[int, int]:
        """Wait for two ready workers, none of them one of these processes; their slots and process ids."""

        def there() -> bool:
            workers = self.stats()["workers"]
            gone = without is None or not without & {worker["pid"] for worker in workers}
            return len(workers) == 2 and gone and all(worker["ready"] for worker in workers)

        until(there, 30)
        return self.workers()

    # MongoDB

    def member(self, port: int, user: str = "monitoring") -> MongoClient[dict[str, Any]]:
        """A client of this member alone."""
        password = (self.layout.secrets / f"{user}_password").read_text()
        return MongoClient(
            "127.0.0.1",
            port,
            directConnection=True,
            username=user,
            password=password,
            authSource="admin",
            serverSelectionTimeoutMS=2000,
        )

    def primary(self) -> int | None:
        """The port of the member that accepts writes now."""
        for port in (port.number for port in self.layout.mongo):
            try:
                with MongoClient[dict[str, Any]](
                    "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=300, connectTimeoutMS=300
                ) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return port
            except PyMongoError:
                continue
        return None

    def wait_for_primary(self) -> int:
        until(lambda: self.primary() is not None, 60)
        port = self.primary()
        assert port is not None
        return port

    def quicken_elections(self) -> None:
        """Let the members miss a dead primary after 2 s instead of 10; nothing else waits for that in these tests."""
        with self.member(self.wait_for_primary(), "admin") as client:
            config = client.admin.command("replSetGetConfig")["config"]
            config["version"] += 1
            config["settings"] |= {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
            client.admin.command("replSetReconfig", config)

    def wait_until_whole(self) -> None:
        """Wait for a primary with two secondaries and for both workers to see them so."""

        def whole() -> bool:
            answer = self.http.get("/health").json()
            return answer["status"] == "ok" and answer["workers"] == 2 and self.primary() is not None

        until(whole, 60)
        self.wait_for_workers()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What wrk saw."""

    requests: int
    non_2xx: int
    socket_errors: int


class Wrk:
    """wrk, asking for random users through nginx while the block runs, and a little longer."""

    def __init__(self, stack: Stack, ids: list[str], *, seconds: int, connections: int = 32) -> None:
        path = stack.home / "user_ids"
        path.write_text("\n".join(ids))
        script = Path(__file__).with_name("random_users.lua")
        self._command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            "20s",
            "-s",
            str(script),
            stack.url,
        ]
        self._environment = {**os.environ, "USER_IDS": str(path)}

    def __enter__(self) -> Wrk:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def result(self) -> Load:
        """Wait for the end. What went wrong is counted, not raised."""
        output, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, output
        requests, non_2xx, socket_errors = map(int, output.splitlines()[-1].split())
        return Load(requests=requests, non_2xx=non_2xx, socket_errors=socket_errors)

    def __exit__(self, *_: object) -> None:
        if self.runs:
            self._process.kill()
            self._process.wait()


def lend_venv(home: Path, venv: Path | None) -> None:
    """Let up.sh find packages that are installed already: these, the tests', or those of the developer's own stack."""
    wanted = hashlib.sha256(b"".join((ROOT / lock).read_bytes() for lock in LOCKS)).hexdigest()
    for donor in (venv, Path(sys.prefix), ROOT / ".sluice/venv"):
        if donor is None or not (donor / "bin/supervisord").exists():
            continue
        if donor == Path(sys.prefix) or wanted in _text(donor / "locks.sha256"):
            switch_venv(home, "lent", donor, wanted)
            return


def switch_venv(home: Path, name: str, donor: Path, locks: str) -> Path:
    """Let up.sh find these packages in an environment of this name, made as it makes them; where that is."""
    folder = home / "venv.d" / name
    folder.mkdir(parents=True)
    for each in ("bin", "lib", "pyvenv.cfg"):
        (folder / each).symlink_to((donor / each).resolve())
    (folder / "locks.sha256").write_text(f"{locks}  -\n")
    (home / "venv").unlink(missing_ok=True)
    (home / "venv").symlink_to(f"venv.d/{name}")
    return folder


def lend_mongod(home: Path) -> None:
    """Let up.sh find the mongod that the tests have."""
    with suppress(FileNotFoundError):  # it installs one
        mongod = find_mongod()
        (home / "bin").mkdir()
        (home / "bin/mongod").symlink_to(mongod)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until the condition holds; a refused or unexpected answer means that it doesn't yet."""
    end = time.monotonic() + seconds
    while True:
        problem: Exception | None = None
        try:
            if condition():
                return
        except (httpx.HTTPError, PyMongoError, OSError, AssertionError, KeyError) as error:
            problem = error
        if time.monotonic() > end:
            raise TimeoutError(f"it did not come true within {seconds:.0f} s: {problem or condition}")
        time.sleep(0.05)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
