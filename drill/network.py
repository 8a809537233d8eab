"""Members whom the network keeps away: cut off, refusing, or full."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

from drill.drills import STARTING, Bounds, Drill
from drill.load import Load
from drill.members import BURNING
from drill.namespaces import filter_packets
from drill.service import MOST_CONNECTIONS, DrillError, Service

CUT_OFF = 12.0
LASTS = 6.0
"""Seconds."""
RESTARTED = BURNING | {"WorkerRestarts"}


@asynccontextmanager
async def rules(*rules: Sequence[str]) -> AsyncIterator[None]:
    """These of iptables' hold while the block lasts."""
    await asyncio.to_thread(filter_packets, "-A", rules)
    try:
        yield
    finally:
        await asyncio.to_thread(filter_packets, "-D", rules)


async def cut_off(service: Service, load: Load) -> None:
    """Nothing reaches the primary, nothing that it sends arrives, and nobody is told: packets disappear."""
    port = await service.wait_for_primary()
    silence = ("INPUT", "-p", "tcp", "--dport", f"{port}", "-j", "DROP")
    mute = ("OUTPUT", "-m", "owner", "--gid-owner", f"{service.group(port)}", "-j", "DROP")
    async with rules(silence, mute):
        await asyncio.sleep(CUT_OFF)
    await service.wait_until_whole()


async def refuse(service: Service, load: Load) -> None:
    """The primary's connections stay, new ones are refused, and a new worker needs some."""
    port = await service.wait_for_primary()
    refused = ("INPUT", "-p", "tcp", "--dport", f"{port}", "--syn", "-j", "REJECT", "--reject-with", "tcp-reset")
    async with rules(refused):
        service.signal(signal.SIGKILL, min(service.workers()))
        await asyncio.sleep(LASTS)
    await service.wait_until_whole()


async def use_up_connections(service: Service, load: Load) -> None:
    """Strangers take what the primary has left, and a new worker needs some."""
    port = await service.wait_for_primary()
    with ExitStack() as strangers:
        client = strangers.enter_context(service.member(port))

        def left() -> int:
            return int(client.admin.command("serverStatus")["connections"]["available"])

        def fill() -> None:
            for _ in range(left()):
                strangers.enter_context(socket.create_connection(("127.0.0.1", port)))

        await asyncio.to_thread(fill)
        service.signal(signal.SIGKILL, min(service.workers()))
        for _ in range(int(LASTS)):
            await asyncio.to_thread(fill)
            await asyncio.sleep(1)
        if await asyncio.to_thread(left) > MOST_CONNECTIONS / 10:
            raise DrillError("the primary's connections were not used up")
    await service.wait_until_whole()


DRILLS = [
    Drill(
        "member-cut-off",
        f"the primary is cut off by its network for {CUT_OFF:.0f} s",
        cut_off,
        Bounds(absent_reads=8, absent_writes=8, recovered=CUT_OFF + 10),
        alerts=BURNING,
        isolated=True,
    ),
    Drill(
        "connections-refused",
        f"the primary refuses new connections for {LASTS:.0f} s, and a worker is killed",
        refuse,
        Bounds(absent_reads=1, absent_writes=1, recovered=LASTS + 10, live=STARTING, unseen=1),
        alerts=RESTARTED,
        isolated=True,
    ),
    Drill(
        "connection-limit",
        f"the primary has no connection left for {LASTS:.0f} s, and a worker is killed",
        use_up_connections,
        Bounds(absent_reads=1, absent_writes=1, recovered=LASTS + 10, live=STARTING, unseen=1),
        alerts=RESTARTED | {"MemberConnectionsNearLimit"},
    ),
]
