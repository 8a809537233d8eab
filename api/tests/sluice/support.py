"""What the tests of the pool core share: slow operations, counts, and the servers' own view."""

from __future__ import annotations

import asyncio
from typing import Any

from sluice import Sluice
from sluice.statistics.snapshot import PoolStats
from sluice.statistics.summary import ContainerSummary, summarize
from stack.replica_set import ReplicaSet


async def slow(sluice: Sluice, seconds: float) -> None:
    """An operation that keeps a connection of the primary busy for so long, on the server."""
    await sluice.collection("slow").find_one({"$where": f"sleep({int(seconds * 1000)}) || true"})


async def quick(sluice: Sluice) -> dict[str, Any] | None:
    return await sluice.collection("slow").find_one({"_id": 1})


async def with_one_document(sluice: Sluice) -> None:
    await sluice.collection("slow").insert_one({"_id": 1})


def total(sluice: Sluice) -> ContainerSummary:
    """The worker's figures now, not what it last published."""
    return summarize([sluice.snapshot()])


def queue(sluice: Sluice) -> PoolStats:
    """The turnstile that an operation on the primary passes."""
    rows = [pool.stats for pool in sluice.snapshot().pools]
    return next(row for row in rows if row.permits and row.eligible)


def held(sluice: Sluice) -> int:
    """Permits that operations hold, at every turnstile."""
    return sum(pool.stats.permits_held for pool in sluice.snapshot().pools)


def connections_of(replica_set: ReplicaSet, app_name: str) -> dict[str, int]:
    """How many connections each member reports for this `appName`, idle ones and monitors included."""
    counts = {}
    for address in replica_set.addresses:
        with replica_set.direct(address) as client:
            rows = client.admin.aggregate(
                [{"$currentOp": {"allUsers": True, "idleConnections": True}}, {"$match": {"appName": app_name}}]
            )
            counts[address] = sum(1 for row in rows if "connectionId" in row)
    return counts


def fail(replica_set: ReplicaSet, address: str, commands: list[str], times: int = 1, **data: Any) -> None:
    """Let the member's next commands fail: `errorCode=`, `closeConnection=`, or `blockConnection=, blockTimeMS=`.

    `times=0` ends that.
    """
    with replica_set.direct(address) as client:
        mode = {"times": times} if times else "off"
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data={"failCommands": commands, **data})


async def settle(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)
