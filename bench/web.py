"""Over HTTP: Sluice and the templates under wrk, through nginx and directly."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
from pathlib import Path

from bench import people
from bench.measure import Figures
from bench.plan import TARGET_LEVEL, Plan
from bench.results import Labels, Workload
from bench.servers import Server, served
from bench.sides import CEILING, KEY, KINDS, MOTOR, PYMONGO, SETUP, SLUICE, WAYS, App

LARGEST = 100_000
"""Documents above which a side's collection is taken back to its beginning, between two measurements."""
_runs = itertools.count()


def write_ids(url: str, apps: list[App], folder: Path) -> Path:
    """Fill the applications' databases; the file of the ids for `wrk`."""
    ids = people.fill(url, sorted({app.database for app in apps}))
    path = folder / "ids.txt"
    path.write_text("\n".join(map(str, ids)))
    return path


def wrk(url: str, kind: str, connections: int, seconds: float, ids: Path) -> Figures:
    """One run of wrk, with one thread; whole seconds. Raises `RuntimeError` when it fails."""
    whole = max(1, math.ceil(seconds))
    environment = {**os.environ, "WORKLOAD": kind, "IDS": str(ids), "KEY": KEY, "RUN": str(next(_runs))}
    script = Path(__file__).with_name("wrk.lua")
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--latency", "--timeout", "10s", "-s", str(script), url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=whole + 30,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    figures: Figures = json.loads(lines[-1])
    return figures


def load(server: Server, way: str, kind: str, connections: int, seconds: float, ids: Path) -> Figures:
    """As `wrk`, and the worker's processor time per request (`cpu`, microseconds), which a busy machine blurs less."""
    before = server.cpu
    figures = wrk(server.url(way), kind, connections, seconds, ids)
    return figures | {"cpu": 1e6 * (server.cpu - before) / max(1, figures["requests"])}


def http(plan: Plan, url: str, folder: Path) -> Workload:
    """Every kind of request at every number of connections, both ways, in turn; and each worker's memory."""
    workload = Workload(
        [
            *SETUP,
            "read: GET /users/{id} of a random id; list: GET /users?limit=20; create: POST /users; bulk: POST"
            " /users/bulk with 20 users; mix: 90% read, 10% create. Rates are requests per second.",
            f"{people.COUNT:,} users to begin with, the same ones for each; taken back to that above {LARGEST:,}.",
        ]
    )
    apps = [SLUICE, CEILING, MOTOR, PYMONGO]
    with served(apps, url, folder, nginx=True) as servers:
        ids = write_ids(url, apps, folder)
        for server in servers:  # opens connections, warms caches
            wrk(server.url("direct"), "ceiling" if server.app is CEILING else "read", 64, 1, ids)
        for way, kind, connections in itertools.product(WAYS, KINDS, plan.connections):
            seconds = plan.target_seconds if (way, connections) == ("nginx", TARGET_LEVEL) else plan.seconds
            for _ in range(plan.rounds):
                for server in servers:
                    if (server.app is CEILING or (plan.quick and way == "direct")) and kind != "read":
                        continue
                    figures = _measure(server, way, kind, connections, seconds, ids, url)
                    labels: Labels = {"way": way, "kind": kind, "connections": connections, "side": server.app.name}
                    workload.row(**labels).rounds.append(figures)
        for server in servers:
            memory = server.worker.memory_full_info()
            workload.row(kind="memory", side=server.app.name).rounds.append(
                {"rss": memory.rss / 2**20, "pss": memory.pss / 2**20}
            )
    return workload


def _measure(server: Server, way: str, kind: str, connections: int, seconds: float, ids: Path, url: str) -> Figures:
    if kind in ("create", "bulk", "mix"):
        people.trim(url, server.app.database, LARGEST)
    return load(server, way, "ceiling" if server.app is CEILING else kind, connections, seconds, ids)
