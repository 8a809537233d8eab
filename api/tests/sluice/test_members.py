"""Pools of members that differ: the slow one is spared, and quiet ones keep their minimum."""

from __future__ import annotations

import asyncio
import time

from pymongo.read_preferences import Secondary

from sluice import Sluice
from sluice.statistics.snapshot import ANY_MEMBER
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import settle, slow, total, with_one_document


async def test_a_slow_members_queue_is_seen_by_server_selection(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str
) -> None:
    """Two secondaries with five connections each answer 5 and 100 times a second."""
    # Motor's one queue stands before all members: what it lets in is spread by their load, so that about half of the
    # five threads are the slow member's.
    per_second = 80 if driver == "pymongo" else 20
    # Whatever their heartbeats take on a busy machine, both are near enough.
    sluice = await open_sluice(max_pool_size=5, url=f"{replica_set.url}&localThresholdMS=1000")
    await with_one_document(sluice)
    collection = sluice.collection("slow").with_options(read_preference=Secondary())
    secondaries = [address for address in replica_set.addresses if address != replica_set.primary()]
    for address, milliseconds in zip(secondaries, (1000, 50), strict=True):
        block = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": milliseconds}
        with replica_set.direct(address) as client:
            client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=block)
    tasks = []
    taken: list[float] = []

    async def timed() -> None:
        started = time.monotonic()
        await collection.find_one({"_id": 1})
        taken.append(time.monotonic() - started)

    for _ in range(30):
        tasks += [asyncio.create_task(timed()) for _ in range(per_second // 10)]
        await asyncio.sleep(0.1)
    refused = [error for error in await settle(tasks) if error is not None]
    assert refused == []
    assert sorted(taken)[int(0.95 * len(taken))] < 5


def idle(sluice: Sluice) -> list[int]:
    """Idle connections of each member."""
    return [
        pool.stats.idle_connections for pool in sluice.snapshot().pools if pool.exists and pool.member != ANY_MEMBER
    ]


def beyond(sluice: Sluice) -> int:
    """Connections that were opened beyond the six that stay."""
    return total(sluice).pool.total_created - 6


async def test_the_minimum_stays_open_and_what_is_beyond_it_goes(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(min_pool_size=2, max_idle_time=0.4)
    await with_one_document(sluice)
    await asyncio.gather(*(slow(sluice, 0.2) for _ in range(5)))
    await until(lambda: idle(sluice) == [2, 2, 2] and beyond(sluice) == total(sluice).pool.closed.get("idle"))
    pool = total(sluice).pool
    opened, closed = pool.total_created, dict(pool.closed)
    end = time.monotonic() + 4  # ten idle times
    while time.monotonic() < end:
        await asyncio.sleep(0.7)  # idle for too long when it is taken, or when the driver looks every second
        await sluice.ping()
        assert idle(sluice) == [2, 2, 2]
    pool = total(sluice).pool
    assert (pool.total_created, pool.closed) == (opened, closed)


async def test_without_a_minimum_idle_connections_go(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(min_pool_size=0, max_idle_time=0.4)
    await with_one_document(sluice)
    await until(lambda: "idle" in total(sluice).pool.closed and total(sluice).pool.current_connections == 0, 10)
    assert total(sluice).pool.closed.keys() == {"idle"}
