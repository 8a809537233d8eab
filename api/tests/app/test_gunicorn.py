"""Gunicorn with real processes; none of this needs MongoDB."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

API = Path(__file__).parents[2]
AWAY = "mongodb://127.0.0.1:1/?replicaSet=rs0"

Start = Callable[..., "Server"]


class Server:
    """A Gunicorn master and its two workers."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.stats = folder / "stats"
        self.log = folder / "api.log"
        self.errors = folder / "stderr"
        settings = {
            "MONGODB_URL": AWAY,
            "SERVER_SELECTION_TIMEOUT_MS": "200",
            "STATS_DIR": str(self.stats),
            "LOG_FILE": str(self.log),
            **environment,
        }
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "main:app",
            "-w",
            "2",
            "--bind",
            f"127.0.0.1:{self.port}",
            *arguments,
        ]
        with self.errors.open("wb") as errors:
            self.master = subprocess.Popen(
                command, cwd=API, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=errors
            )

    def wait(self) -> None:
        until(lambda: len(self.workers()) == 2 and self.log.read_text().count("startup complete") == 2)

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.master.pid).children()
        except psutil.NoSuchProcess:
            return []

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def files(self) -> set[str]:
        """The files that workers leave behind; a draft is one that is being written."""
        paths = (path for path in self.stats.rglob("*") if path.is_file() and path.suffix != ".draft")
        return {str(path.relative_to(self.stats)) for path in paths}

    def stop(self) -> None:
        workers = self.workers()
        self.master.terminate()
        self.master.wait(20)
        psutil.wait_procs(workers, timeout=20)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start_one(*arguments: str, **environment: str) -> Server:
        servers.append(Server(tmp_path, *arguments, **environment))
        servers[-1].wait()
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()


def requests_counted(server: Server) -> float:
    lines = [line for line in server.get("/metrics").splitlines() if line.startswith("http_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("preload", ["false", "true"])
def test_a_killed_worker_comes_back_in_its_slot_and_counts_on(start: Start, preload: str) -> None:
    server = start(PRELOAD=preload, STATS_CACHE_MS="0")
    for _ in range(20):
        server.get("/openapi.json")
    files, counted = server.files(), requests_counted(server)
    assert counted == 20
    for _ in range(3):
        victim = server.workers()[0]
        victim.kill()
        psutil.wait_procs([victim], timeout=5)
        until(lambda gone=victim.pid: len(server.workers()) == 2 and gone not in [w.pid for w in server.workers()])  # type: ignore[misc]
        until(lambda: '"workers":2' in _health(server))
    assert requests_counted(server) == 20
    server.get("/openapi.json")
    assert requests_counted(server) == 21
    assert {name for name in server.files() if not name.startswith("http/")} == {
        name for name in files if not name.startswith("http/")
    }
    assert len(server.files()) <= len(files) + 2  # a slot that had served nothing yet


def _health(server: Server) -> str:
    try:
        return server.get("/health")
    except urllib.error.HTTPError as answer:
        return answer.read().decode()


def test_workers_do_not_outlive_a_killed_master(start: Start) -> None:
    server = start()
    workers = server.workers()
    server.master.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def test_a_reload_with_wrong_settings_goes_on_with_the_right_ones(start: Start, tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text(AWAY)
    server = start(MONGODB_URL="", MONGODB_URL_FILE=str(url))
    before = {worker.pid for worker in server.workers()}
    url.write_text("mongodb://app:geheim@h/?nonsense=1")
    server.master.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2 and not before & {worker.pid for worker in server.workers()})
    assert server.get("/health/live") == '{"status":"alive"}'
    assert "option nonsense is unknown" in server.errors.read_text()
    assert "geheim" not in server.errors.read_text()


@pytest.mark.parametrize("worker", ["uvicorn.workers.UvicornWorker", "uvicorn_worker.UvicornWorker"])
def test_the_usual_worker_classes_serve_as_well(start: Start, worker: str) -> None:
    server = start("-k", worker)
    assert server.get("/health/live") == '{"status":"alive"}'


def test_the_budget_counts_the_workers_of_the_command_line(tmp_path: Path) -> None:
    environment = {**os.environ, "CONNECTION_BUDGET": "300", "WORKERS": "1", "STATS_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "gunicorn", "main:app", "-w", "4", "--bind", "127.0.0.1:0"]
    ended = subprocess.run(command, cwd=API, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "4 workers × (100 pool + 2 monitors)" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
