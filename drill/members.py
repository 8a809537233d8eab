"""Members of the replica set that are killed, frozen, asked to step down, or made to fail."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pymongo.errors import AutoReconnect

from drill.drills import Bounds, Drill
from drill.load import Load
from drill.service import Service

FROZEN = 15.0
AWAY = 5.0
AFTER = 2.0
ELECTED = 5.0
"""Seconds from a majority to a primary who is found: 3 without one, and the election."""
STARTED = 5.0
"""Seconds in which a member stops and starts."""
GONE = frozenset(
    {
        "NoPrimary",
        "MemberDown",
        "ReplicationLag",
        "WorkerNotReady",
        "PoolConnectFailures",
        "PoolTimeouts",
        "PoolWaitsLong",
    }
)
"""A member is away, or all are: these say so."""
BURNING = GONE | {
    "ErrorBudgetBurnsFast",
    "LatencyBudgetBurnsFast",
}


async def kill_primary(service: Service, load: Load) -> None:
    primary = await service.wait_for_primary()
    service.signal(signal.SIGKILL, service.mongod(primary))
    await service.wait_for_primary(without=primary)
    await service.wait_until_whole()


async def freeze_primary(service: Service, load: Load) -> None:
    primary = await service.wait_for_primary()
    service.freeze(primary)
    try:
        await asyncio.sleep(FROZEN)
    finally:
        service.thaw(primary)
    await service.wait_until_whole()


async def step_down(service: Service, load: Load) -> None:
    """And what the next one's pool, which nobody used, makes of the usual load."""
    before = time.monotonic()
    await ask_to_step_down(service, await service.wait_for_primary())
    elected = time.monotonic()
    await asyncio.sleep(AFTER)
    load.notes |= {
        "ms p99 before": 1000 * load.p99(load.started, before),
        f"ms p99 in the first {AFTER:g} s of the next primary": 1000 * load.p99(elected, elected + AFTER),
    }
    await service.wait_until_whole()


async def ask_to_step_down(service: Service, primary: int) -> None:
    """And wait until another one has taken over."""

    def ask() -> None:
        with service.member(primary) as client, suppress(AutoReconnect):
            client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)

    await asyncio.to_thread(ask)
    await service.wait_for_primary(without=primary)


async def kill_secondary(service: Service, load: Load) -> None:
    primary = await service.wait_for_primary()
    secondary = next(port for port in service.members if port != primary)
    service.signal(signal.SIGKILL, service.mongod(secondary))
    await service.wait_until_whole()


async def freeze_two(service: Service, load: Load) -> None:
    """Both secondaries: nothing has a majority any more, and the primary gives up in time."""
    primary = await service.wait_for_primary()
    others = [port for port in service.members if port != primary]
    service.freeze(*others)
    try:
        await asyncio.sleep(FROZEN)
    finally:
        service.thaw(*others)
    await service.wait_until_whole()


async def two_gone(service: Service, load: Load) -> None:
    """Stopped by the process manager, so that it doesn't start them again; then started."""
    primary = await service.wait_for_primary()
    names = [f"mongod-{port}" for port in service.members if port != primary]
    await asyncio.to_thread(service.supervisor.end, *names)
    try:
        await asyncio.sleep(AWAY)
    finally:
        await asyncio.to_thread(service.supervisor.launch, *names)
    await service.wait_until_whole()


def slowed(milliseconds: int, seconds: float = 6.0) -> Drill:
    """Every operation of the service on every member takes so much longer."""

    longest = 1 + 2 * milliseconds / 1000

    async def slow(service: Service, load: Load) -> None:
        commands = ["find", "insert", "update", "delete", "findAndModify", "aggregate"]
        data = {"failCommands": commands, "blockConnection": True, "blockTimeMS": milliseconds}
        await _fail(service, data, seconds)

    return Drill(
        f"slowed-{milliseconds}ms", f"every operation takes {milliseconds} ms longer, for {seconds:.0f} s", slow,
        Bounds(absent_reads=longest, absent_writes=longest, recovered=seconds + 5), alerts=BURNING,
    )  # fmt: skip


async def cut(service: Service, load: Load) -> None:
    """One command in ten loses its connection instead of an answer; the driver repeats what may be repeated."""
    data = {"failCommands": ["find", "insert", "findAndModify", "delete"], "closeConnection": True}
    await _fail(service, data, 6.0, mode={"activationProbability": 0.1})


@asynccontextmanager
async def fail_points(service: Service, data: dict[str, object], mode: object = "alwaysOn") -> AsyncIterator[None]:
    """All members fail as MongoDB's `failCommand` describes it, while the block lasts."""

    def tell(mode: object) -> None:
        for port in service.members:
            with service.member(port) as client:
                client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})

    await asyncio.to_thread(tell, mode)
    try:
        yield
    finally:
        await asyncio.to_thread(tell, "off")


async def _fail(service: Service, data: dict[str, object], seconds: float, mode: object = "alwaysOn") -> None:
    async with fail_points(service, data, mode):
        await asyncio.sleep(seconds)
    await service.wait_until_whole()


DRILLS = [
    Drill(
        "primary-killed",
        "the primary is killed",
        kill_primary,
        Bounds(absent_reads=6, absent_writes=6, recovered=10),
        alerts=BURNING,
        quick=True,
    ),
    Drill(
        "primary-frozen",
        f"the primary is frozen for {FROZEN:.0f} s",
        freeze_primary,
        Bounds(absent_reads=7, absent_writes=7, recovered=FROZEN + 10),
        alerts=BURNING,
    ),
    Drill(
        "primary-steps-down",
        "the primary is asked to step down",
        step_down,
        Bounds(failed=0, absent_reads=3, absent_writes=3, recovered=5),
        alerts=GONE,
        quick=True,
    ),
    Drill(
        "secondary-killed",
        "a secondary is killed",
        kill_secondary,
        Bounds(failed=0, absent_reads=1, absent_writes=2, recovered=5),  # the other one may have copied from it
        alerts=GONE,
        quick=True,
    ),
    Drill(
        "two-frozen",
        f"both secondaries are frozen for {FROZEN:.0f} s",
        freeze_two,
        Bounds(absent_reads=FROZEN + ELECTED, absent_writes=FROZEN + ELECTED, recovered=FROZEN + 15),
        alerts=BURNING,
    ),
    Drill(
        "two-gone",
        f"two of three members are stopped for {AWAY:.0f} s",
        two_gone,
        Bounds(absent_reads=AWAY + STARTED + ELECTED, absent_writes=AWAY + STARTED + ELECTED, recovered=30),
        alerts=BURNING,
    ),
    slowed(50),
    slowed(2_000),
    Drill(
        "replies-cut",
        "one command in ten loses its connection",
        cut,
        Bounds(absent_reads=2, absent_writes=2, recovered=8),
        alerts=BURNING,
        quick=True,
    ),
]
