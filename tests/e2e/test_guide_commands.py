"""The guide's own commands, typed in api/, on any replica set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from whole_stack import ROOT, until

from stack.free_ports import free_ports
from stack.replica_set import ReplicaSet


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicaSet]:
    server = ReplicaSet(members=1)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("command", "workers"),
    [
        ("uvicorn main:app --host 127.0.0.1 --port {port}", 1),
        ("gunicorn main:app -w 2 -k uvicorn_worker.UvicornWorker --bind 127.0.0.1:{port}", 2),
        ("gunicorn main:app", 2),
    ],
)
def test_the_guides_command_serves_until_it_is_ended(
    server: ReplicaSet, tmp_path: Path, command: str, workers: int
) -> None:
    [port] = free_ports(1)
    statistics = tmp_path / "statistics"
    settings = {
        "MONGODB_URL": server.url,
        "STATS_DIR": str(statistics),
        "STATS_CACHE_MS": "0",
        "WORKERS": str(workers),
        "BIND": f"127.0.0.1:{port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            command.format(port=port).split(),
            cwd=ROOT / "api",
            env={**os.environ, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: httpx.get(f"{url}/health/live").status_code == 200)
        until(lambda: _ready(url) == workers)
        assert httpx.get(f"{url}/users").status_code == 200
        assert len(list(statistics.glob("[0-9].lock"))) == workers
        process.terminate()
        assert process.wait(20) in (0, -15)
    finally:
        process.kill()
        process.wait()
    written = (tmp_path / "output").read_text()
    assert "Traceback" not in written, written


def _ready(url: str) -> int:
    stats = httpx.get(f"{url}/connection-stats").json()["connection_pool_stats"]
    return sum(worker["ready"] for worker in stats["workers"])
