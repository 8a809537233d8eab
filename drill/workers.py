"""Workers and their master: killed, reloaded, replaced."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from dataclasses import replace
from functools import partial

from drill.drills import PLANNED, STARTING, Bounds, Drill, Fault
from drill.load import Load
from drill.members import GONE, ask_to_step_down
from drill.service import Service

RECYCLING = 10.0
CONNECTIONS = 200
RELOADS = 10
REPLACED = "workers replaced"
IN_TURN = 300
"""Workers, in so many seconds at most."""
TURNS = 720.0
BUSY = frozenset(
    {
        "WorkerNotReady",
        "WorkerRestarts",
        "EventLoopLag",
        "EventLoopBlocked",
        "LatencyBudgetBurnsFast",
    }
)
"""Workers start, and while they do, the others have less of the machine: so it is."""


async def kill_one(service: Service, load: Load) -> None:
    old = service.workers()
    service.signal(signal.SIGKILL, min(old))
    await service.wait_for_other_workers({min(old)})


async def kill_all(service: Service, load: Load) -> None:
    old = service.workers()
    service.signal(signal.SIGKILL, *old)
    await service.wait_for_other_workers(old)


async def kill_master(service: Service, load: Load) -> None:
    old = service.workers()
    service.signal(signal.SIGKILL, service.master())
    await service.wait_for_other_workers(old)


async def reload(service: Service, load: Load) -> None:
    for _ in range(RELOADS):
        old = service.workers()
        service.signal(signal.SIGHUP, service.master())
        await service.wait_for_other_workers(old)


def changed(name: str, value: str) -> Fault:
    """By `up.sh`, as a person would; and back."""

    async def change(service: Service, load: Load) -> None:
        await asyncio.to_thread(partial(service.up, **{name: value}))
        await asyncio.to_thread(service.up)

    return change


async def restart_everything(service: Service, load: Load) -> None:
    """Every member in turn, the primary last and once another one has taken over; then the API and nginx reload."""
    primary = await service.wait_for_primary()
    for port in sorted(service.members, key=lambda port: port == primary):
        if port == await service.wait_for_primary():
            await ask_to_step_down(service, port)
        await asyncio.to_thread(service.supervisor.end, f"mongod-{port}")
        await asyncio.to_thread(service.supervisor.launch, f"mongod-{port}")
        await service.wait_until_whole()
    await asyncio.to_thread(partial(service.up, SLOW_OPERATION_MS="200", MAX_BODY_BYTES="2000000"))
    await service.wait_until_whole()


def recycle(seconds: float, enough: float = math.inf) -> Fault:
    """They are replaced by themselves, having served what `MAX_REQUESTS` says; for so long, or until it's so many."""

    async def go_on(service: Service, load: Load) -> None:
        seen, limit = set(service.workers()), time.monotonic() + seconds
        load.notes[REPLACED] = 0
        while time.monotonic() < limit and load.notes[REPLACED] < enough:
            await asyncio.sleep(0.2)
            there = service.workers()
            seen |= there
            load.notes[REPLACED] = len(seen - there)

    return go_on


KILLED = Bounds(absent_reads=1, absent_writes=1, recovered=5, live=STARTING, unseen=1)

DRILLS = [
    Drill("worker-killed", "a worker is killed", kill_one, KILLED, alerts=BUSY, quick=True),
    Drill(
        "workers-killed",
        "all workers are killed",
        kill_all,
        Bounds(absent_reads=1.5, absent_writes=1.5, recovered=5, live=1.5, unseen=1),
        alerts=BUSY,
    ),
    Drill(
        "master-killed",
        "Gunicorn's master is killed",
        kill_master,
        Bounds(failed=5, absent_reads=1, absent_writes=1, recovered=8, live=2),
        alerts=BUSY,
        quick=True,
    ),
    Drill(
        "rolling-restart",
        "every member is restarted in turn, then API and nginx reload",
        restart_everything,
        Bounds(failed=0, absent_reads=3, absent_writes=3, recovered=30, live=STARTING),
        keeps_connections=False,  # nginx before 1.27.4 closes idle ones at a reload; nginx-setting has what that costs
        alerts=BUSY | GONE,
    ),
    Drill(
        "reload",
        f"{RELOADS} reloads in a row",
        reload,
        replace(PLANNED, recovered=4 * RELOADS),
        callers=CONNECTIONS,
        alerts=BUSY,
    ),
    Drill(
        "api-setting",
        "a setting of the API is changed by up.sh, and back",
        changed("SLOW_OPERATION_MS", "200"),
        PLANNED,
        callers=CONNECTIONS,
        alerts=BUSY,
    ),
    Drill(
        "nginx-setting",
        "a setting of nginx's is changed by up.sh, and back",
        changed("MAX_BODY_BYTES", "2000000"),
        Bounds(absent_reads=1, absent_writes=1, recovered=10, live=STARTING),
        callers=CONNECTIONS,
        alerts=BUSY,
    ),
    Drill(
        "recycling",
        "workers replaced every 200 requests",
        recycle(RECYCLING),
        replace(PLANNED, recovered=RECYCLING + 5, least={REPLACED: 3}),
        callers=CONNECTIONS,
        rate=600.0,
        settings={"MAX_REQUESTS": "200", "MAX_REQUESTS_JITTER": "50"},
        alerts=BUSY,
        quick=True,
    ),
    Drill(
        "workers-in-turn",
        f"{IN_TURN} workers are replaced, every 200 requests",
        recycle(TURNS, IN_TURN),
        replace(PLANNED, recovered=TURNS, least={REPLACED: IN_TURN}),
        callers=CONNECTIONS,
        rate=600.0,
        settings={"MAX_REQUESTS": "200", "MAX_REQUESTS_JITTER": "50"},
        alerts=BUSY,
    ),
]
