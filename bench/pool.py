"""Pool level: the bare driver, Sluice's fair pool, `Reader` and `Writer`, in one process on uvloop."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bson import ObjectId
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from bench import people
from bench.measure import Call, closed_loop, drive, latencies
from bench.plan import Plan
from bench.results import Workload
from sluice import Driver, Options, Slot, Sluice

DATABASE = "bench"
INSERTS = "inserts"
DRIVERS: tuple[Driver, ...] = ("pymongo", "motor")
SATURATING = 256
SMALL_POOL = 16


@asynccontextmanager
async def opened(url: str, driver: Driver, pool: int, waiting_per_slot: int = 5) -> AsyncIterator[Sluice]:
    """A Sluice of its own, closed at the end."""
    options = Options(
        url=url,
        database=DATABASE,
        driver=driver,
        max_pool_size=pool,
        min_pool_size=0,
        wait_queue_multiple=waiting_per_slot,
        wait_queue_timeout=60,
    )
    with tempfile.TemporaryDirectory() as folder:
        sluice = Sluice(options, Slot.claim(Path(folder)))
        await sluice.open()
        try:
            if not await sluice.wait_until_prepared(30):
                raise TimeoutError("MongoDB was not reached")
            yield sluice
        finally:
            await sluice.close()


@asynccontextmanager
async def bare(url: str, driver: Driver, pool: int = 100) -> AsyncIterator[Any]:
    """The driver's own client, closed at the end; whatever else it has is its default."""
    if driver == "motor":
        motor: AsyncIOMotorClient[people.Document] = AsyncIOMotorClient(url, maxPoolSize=pool)
        yield motor
        motor.close()
    else:
        async with AsyncMongoClient[people.Document](url, maxPoolSize=pool) as client:
            yield client


async def throughput(plan: Plan, url: str) -> Workload:
    """`find_one` and `insert_one`, each way, at every number of callers, with both drivers."""
    workload = Workload(
        [
            "One process on uvloop; every side's client and pool are open throughout, one measurement at a time.",
            "driver: the driver's client with its defaults (pool of 100; Motor: 5 threads per core).",
            "fair: the same operation through Sluice's pool of 100; Reader, Writer: on that pool, 2 lanes.",
            "The wait queue holds 1,000, so that 1,000 callers are not refused.",
            f"Reads: a random `_id` of {people.COUNT:,}. Inserts: as large, acknowledged by the majority.",
        ]
    )
    ids = people.fill(url, [DATABASE])
    for driver in DRIVERS:
        async with bare(url, driver) as client, opened(url, driver, 100, 10) as sluice:
            for operation, sides in _operations(client, sluice, ids).items():
                for callers in plan.callers:
                    for _ in range(plan.rounds):
                        for side, call in sides.items():
                            await client[DATABASE].drop_collection(INSERTS)
                            row = workload.row(driver=driver, operation=operation, side=side, callers=callers)
                            row.rounds.append(await closed_loop(call, callers, plan.seconds))
    return workload


def _operations(client: Any, sluice: Sluice, ids: list[ObjectId]) -> dict[str, dict[str, Call]]:
    plain_users = client[DATABASE][people.COLLECTION]
    plain_inserts = client[DATABASE][INSERTS]
    fair_users, fair_inserts = sluice.collection(people.COLLECTION), sluice.collection(INSERTS)
    reader, writer = sluice.reader(people.COLLECTION), sluice.writer(INSERTS)
    template = people.person(0)

    def document() -> people.Document:
        return {**template, "_id": ObjectId()}

    return {
        "find_one": {
            "driver": lambda: plain_users.find_one({"_id": random.choice(ids)}),
            "fair": lambda: fair_users.find_one({"_id": random.choice(ids)}),
            "Reader": lambda: reader.get(random.choice(ids)),
        },
        "insert_one": {
            "driver": lambda: plain_inserts.insert_one(document()),
            "fair": lambda: fair_inserts.insert_one(document()),
            "Writer": lambda: writer.insert(document()),
        },
    }


async def fairness(plan: Plan, url: str) -> Workload:
    """Many more callers than connections: who waits how long, and who is served how often."""
    workload = Workload(
        [
            f"{SATURATING} tasks repeat `find_one` on a pool of {SMALL_POOL}, without a wait-queue timeout that ends"
            " any of them.",
            "driver: the driver's own pool (Motor: its threads, 5 per core, come before it). fair: Sluice's turnstile.",
        ]
    )
    ids = people.fill(url, [DATABASE])
    for driver in DRIVERS:
        async with (
            bare(url, driver, SMALL_POOL) as client,
            opened(url, driver, SMALL_POOL, SATURATING // SMALL_POOL) as sluice,
        ):
            sides = {
                name: call for name, call in _operations(client, sluice, ids)["find_one"].items() if name != "Reader"
            }
            for _ in range(plan.rounds):
                for side, call in sides.items():
                    await drive(call, SMALL_POOL, 0.2)  # opens the pool
                    taken = await drive(call, SATURATING, plan.fairness_seconds)
                    served = [len(own) for own in taken]
                    workload.row(driver=driver, side=side).rounds.append(
                        {
                            "rate": sum(served) / plan.fairness_seconds,
                            "least": min(served),
                            "most": max(served),
                            **latencies([latency for own in taken for latency in own]),
                        }
                    )
    return workload


async def sizes(plan: Plan, url: str) -> Workload:
    """What the pool's size does to throughput and latency, for an operation that can't be coalesced."""
    workload = Workload(
        [
            "`find_one` through the fair pool of one process (PyMongo), by 64 and by 256 callers.",
        ]
    )
    ids = people.fill(url, [DATABASE])
    for callers in (64, SATURATING):
        for _ in range(plan.rounds):
            for size in plan.pool_sizes:
                async with opened(url, "pymongo", size, 200) as sluice:
                    users = sluice.collection(people.COLLECTION)
                    figures = await closed_loop(
                        lambda users=users: users.find_one({"_id": random.choice(ids)}),  # type: ignore[misc]
                        callers,
                        plan.seconds,
                    )
                    workload.row(callers=callers, pool=size).rounds.append(figures)
    return workload
