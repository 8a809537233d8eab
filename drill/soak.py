"""Hours in minutes: most of what the machine can do, with workers that are replaced, and nothing that grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

from drill.drills import Bounds, Drill, Fault
from drill.load import Load
from drill.service import Service
from drill.workers import REPLACED

MINUTES = 10.0
PART = 0.7
"""Of what is done when all callers ask again at once."""
MEASURING = 8.0
"""Seconds in which that is found out."""
SAMPLES = 120
WORKER, MASTER, NGINX = "a worker's", "the master's", "nginx's"
P99 = "p99, ms"
CONNECTIONS = "connections of the members"
FILES = "files"
MEMORY, DESCRIPTORS = "MB", "descriptors"
FLAT = {
    **{f"{who} {MEMORY}": 1.1 for who in (WORKER, MASTER, NGINX)},
    **{f"{who} {DESCRIPTORS}": 1.2 for who in (WORKER, MASTER, NGINX)},
    CONNECTIONS: 1.2,
    FILES: 1.1,
    P99: 1.5,
}
"""How many times the median of its first third the median of the last third may be."""


def soak(minutes: float) -> Fault:
    async def go_on(service: Service, load: Load) -> None:
        load.rate, began = 1e6, len(load.records)
        await asyncio.sleep(MEASURING)
        most = (len(load.records) - began) / MEASURING
        load.rate = PART * most
        load.notes |= {"requests per second at most": most, "requests per second in the soak": load.rate}
        start, seen = time.monotonic(), set(service.workers())
        every = minutes * 60 / SAMPLES
        while (passed := time.monotonic() - start) < minutes * 60:
            await asyncio.sleep(every - passed % every)
            for what, value in (await asyncio.to_thread(_sample, service)).items():
                load.series.setdefault(what, []).append((time.monotonic() - start, value))
            p99 = 1000 * load.p99(time.monotonic() - 2 * every, time.monotonic())
            load.series.setdefault(P99, []).append((time.monotonic() - start, p99))
            seen |= service.workers()
        load.notes[REPLACED] = len(seen - service.workers())

    return go_on


def _sample(service: Service) -> dict[str, float]:
    workers, master = service.workers(), service.master()
    nginx = service.supervisor.pid("nginx")
    found = {
        **_of_processes(WORKER, workers, len(workers)),
        **_of_processes(MASTER, {master}),
        **_of_processes(NGINX, {nginx, *(child.pid for child in psutil.Process(nginx).children())}),
    }
    connections = 0
    for port in service.members:
        with service.member(port) as client:
            connections += client.admin.command("serverStatus")["connections"]["current"]
    places = (service.statistics, service.layout.logs, service.layout.home / "run", service.layout.home / "nginx")
    files = sum(path.suffix != ".draft" for place in places for path in place.rglob("*"))
    return found | {CONNECTIONS: float(connections), FILES: float(files)}


def _of_processes(who: str, pids: Iterable[int], number: int = 1) -> dict[str, float]:
    """Their own memory and open files, divided by how many there are; who has just ended has none."""
    memory = descriptors = 0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            memory += process.memory_full_info().uss
            descriptors += process.num_fds()
    return {f"{who} {MEMORY}": memory / 1e6 / max(1, number), f"{who} {DESCRIPTORS}": descriptors / max(1, number)}


def drill(minutes: float = MINUTES) -> Drill:
    return Drill(
        "soak",
        f"{minutes:g} minutes at {PART:.0%} of what the machine does, with workers replaced every 20,000 requests",
        soak(minutes),
        Bounds(failed=0, absent_reads=1, absent_writes=1, live=1, least={REPLACED: minutes / 5}, flat=FLAT),
        settings={"MAX_REQUESTS": "20000", "MAX_REQUESTS_JITTER": "5000"},
        alerts=frozenset({"WorkerNotReady", "WorkerRestarts", "LatencyBudgetBurnsFast"}),
    )


DRILLS = [drill()]
