"""What the service itself runs out of: disks, and descriptors."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil

from drill.drills import PLANNED, Bounds, Drill
from drill.excess import allow_files
from drill.load import Load
from drill.members import BURNING
from drill.service import WORKERS, DrillError, Service
from drill.workers import BUSY

LASTS = 6.0
"""Seconds."""
SPARE = 20
"""Descriptors that each worker has left, and so many times as many clients want one."""
WANTED = 10


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """The file system of this folder has no room left, to the last byte."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(b"x" * size):
                        pass
        yield
    finally:
        ballast.unlink(missing_ok=True)


def disk_full(folder: Callable[[Service], Path]) -> Callable[[Service, Load], Awaitable[None]]:
    """And while it is, the workers are reloaded: the new ones find no room, either."""

    async def fill(service: Service, load: Load) -> None:
        with full(folder(service)):
            await asyncio.sleep(LASTS / 2)
            old = service.workers()
            service.signal(signal.SIGHUP, service.master())
            await asyncio.sleep(LASTS)

            def replaced() -> bool:
                there = service.workers()
                return len(there) >= WORKERS and not there & old

            await service.until(replaced, 30, "the workers are not replaced")
        await service.wait_until_whole()

    return fill


async def use_up_descriptors(service: Service, load: Load) -> None:
    """Idle clients of the API itself take all that its workers may have."""
    workers = [psutil.Process(pid) for pid in service.workers()]
    before = [worker.rlimit(resource.RLIMIT_NOFILE) for worker in workers]
    clients = SPARE * WANTED * len(workers)
    allow_files(clients + 1_000)
    try:
        for worker, (_, hard) in zip(workers, before, strict=True):
            worker.rlimit(resource.RLIMIT_NOFILE, (worker.num_fds() + SPARE, hard))
        with ExitStack() as crowd:
            for _ in range(clients):
                connection = crowd.enter_context(socket.socket())
                connection.setblocking(False)
                with suppress(OSError):
                    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", service.layout.api.number))
            least, limit = clients, time.monotonic() + LASTS
            while time.monotonic() < limit:
                left = sum(worker.rlimit(resource.RLIMIT_NOFILE)[0] - worker.num_fds() for worker in workers)
                least = min(least, left)
                await asyncio.sleep(0.1)
            if least > 1:
                raise DrillError(f"{least} descriptors were left to the workers at least")
    finally:
        for worker, limits in zip(workers, before, strict=True):
            with suppress(psutil.NoSuchProcess):
                worker.rlimit(resource.RLIMIT_NOFILE, limits)
    await service.wait_until_whole()


DRILLS = [
    Drill(
        "disk-full-statistics",
        "the workers' statistics have no room left, and the workers are reloaded",
        disk_full(lambda service: service.statistics),
        replace(PLANNED, recovered=2 * LASTS + 5),
        alerts=BUSY,
        isolated=True,
    ),
    Drill(
        "disk-full-logs",
        "the logs (but for MongoDB's) have no room left, and the workers are reloaded",
        disk_full(lambda service: service.layout.logs),
        replace(PLANNED, recovered=2 * LASTS + 5),
        alerts=BUSY,
        isolated=True,
    ),
    Drill(
        "descriptors-used-up",
        f"idle clients use up the workers' descriptors for {LASTS:.0f} s",
        use_up_descriptors,
        Bounds(
            absent_reads=2, absent_writes=2, recovered=LASTS + 10, unseen=None
        ),  # who has none can't take a connection
        alerts=BURNING | {"ScrapeFailed", "ApiDown"},
    ),
]
