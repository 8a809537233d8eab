"""More than fits: too many requests, clients that do nothing, that are slow, that never end, or that don't wait."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import psutil

from drill.drills import PLANNED, Bounds, Drill
from drill.load import NO_CONNECTION, Load
from drill.members import BURNING, fail_points
from drill.service import WORKERS, DrillError, Service

LASTS = 8.0
"""Seconds."""
IDLE = 5_000
SLOW = 200
ENDLESS = 50
HERD = 1_000
OPEN = "descriptors of nginx's workers meanwhile"
MOST_TAKEN = "MB of an endless body that were taken at most"
SERVED = "requests per second served"
FOR_THE_DEAD = "% of the queries were for the dead"
GAVE_UP = "requests whose client had gone"
SILENT = "of the herd got no answer"
BODY = 1.0
"""MB of a body that are taken (`MAX_BODY_BYTES`), and what the system's own buffers take besides."""
BUFFERS = 10.0
IN_PROGRESS = 50
"""Requests of one worker, in an overload: few, so that these callers can be more."""
PATIENCE = 1.0
CROWDED = replace(PLANNED, recovered=LASTS + 5)
FULL = BURNING | {"PoolSaturated", "PoolNearlyFull", "PoolRefusals", "BatchRefusals"}
HEAD = b"POST /users HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
Caller = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def crowd(service: Service, number: int, behave: Caller, look: Callable[[], None] = lambda: None) -> None:
    """So many clients of nginx at once, for a while; a connection that is refused or cut is no news here.

    `look`: at what has come of it, while those who stay are still there.
    """
    allow_files(number + 1_000)
    host, port = "127.0.0.1", service.layout.http.number

    async def one() -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                await behave(reader, writer)
            finally:
                writer.close()

    tasks = []
    for _ in range(number):
        tasks.append(asyncio.create_task(one()))
        if len(tasks) % 100 == 0:  # a crowd, but no flood of connections
            await asyncio.sleep(0.02)
    await asyncio.sleep(LASTS)
    look()
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


def allow_files(number: int) -> None:
    """So many open files of the drills' own. Raises `DrillError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise DrillError(f"this system allows {hard} open files, {number} are needed (ulimit -n)")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


async def idle(service: Service, load: Load) -> None:
    """Those that nginx has taken, and not closed, are counted at its own descriptors."""

    def look() -> None:
        nginx = psutil.Process(service.supervisor.pid("nginx"))
        load.notes[OPEN] = sum(worker.num_fds() for worker in nginx.children())

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await crowd(service, IDLE, behave, look)


async def send_slowly(service: Service, load: Load) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    await crowd(service, SLOW, behave)


async def read_slowly(service: Service, load: Load) -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(200):
            writer.write(b"GET /users?limit=100 HTTP/1.1\r\nHost: here\r\n\r\n")
        await asyncio.sleep(LASTS)

    await crowd(service, SLOW, behave)


async def never_end(service: Service, load: Load) -> None:
    """Each body goes on until it's refused; how much of it was taken is counted."""
    taken: list[int] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        answered = asyncio.create_task(reader.readline())
        try:
            while not answered.done():
                writer.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
                await writer.drain()
                sent += 0x8000
                await asyncio.sleep(0)
        finally:
            answered.cancel()
            taken.append(sent)

    await crowd(service, ENDLESS, behave)
    load.notes[MOST_TAKEN] = max(taken, default=0) / 1e6


async def herd(service: Service, load: Load) -> None:
    """Everybody at once, after a pause."""
    statuses: list[int] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await start.wait()
        writer.write(b"GET /users?limit=5 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        if status := int((await reader.readline())[9:12] or b"0"):
            statuses.append(status)
            load.others[status] += status != 200

    start = asyncio.Event()
    asyncio.get_running_loop().call_later(LASTS / 2, start.set)
    await crowd(service, HERD, behave)
    load.others[NO_CONNECTION] += HERD - len(statuses)
    load.notes |= {f"of the herd were answered {status}": statuses.count(status) for status in sorted(set(statuses))}
    load.notes[SILENT] = HERD - len(statuses)


async def wait_out(service: Service, load: Load) -> None:
    await asyncio.sleep(load.arriving)
    began = time.monotonic()
    await asyncio.sleep(LASTS)
    ended = [record for record in load.records if record.ended > began]
    load.notes |= {
        SERVED: sum(record.good for record in ended) / LASTS,
        "refused": sum(not record.good for record in ended) / LASTS,
        "ms p99 of what was served": 1000 * load.p99(began, time.monotonic(), good=True),
    }


async def give_up(service: Service, load: Load) -> None:
    """Clients who wait for a second at most, before pools of one connection whose operations take 10 ms longer."""

    primary = await service.wait_for_primary()  # some of the reads are mirrored to the others, to warm their caches

    def queries() -> int:
        with service.member(primary) as client:
            return int(client.admin.command("serverStatus")["opcounters"]["query"])

    slow: dict[str, object] = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 10}
    async with fail_points(service, slow):
        before, began = await asyncio.to_thread(queries), time.monotonic()
        async with Load(
            service.url, callers=600, rate=600, mix={"list": 1}, patience=PATIENCE, ledger=load.ledger
        ) as impatient:
            await asyncio.sleep(LASTS)
        done = await asyncio.to_thread(queries) - before
        ended = time.monotonic()
    answered = sum(record.good for record in impatient.records)
    others = sum(record.good and record.kind == "read" and began < record.ended < ended for record in load.records)
    load.others[500] += sum(record.status == 500 for record in impatient.records)
    load.notes |= {
        "requests that were answered": answered,
        GAVE_UP: sum(record.status == NO_CONNECTION for record in impatient.records),
        FOR_THE_DEAD: 100 * max(0, done - answered - others) / max(1, done),
    }


def overload(factor: int) -> Drill:
    callers = factor * IN_PROGRESS * WORKERS
    return Drill(
        f"overload-{factor}x",
        f"{callers:,} callers who ask again at once: {factor} times what may be in progress",
        wait_out,
        Bounds(absent_reads=2, absent_writes=2, live=1, least={SERVED: 100}),
        callers=callers,
        rate=1e6,
        arriving=1.0,
        settings={"MAX_REQUESTS_IN_PROGRESS": f"{IN_PROGRESS}"},
        alerts=FULL | {"EventLoopLag", "EventLoopBlocked"},
        expects_failures=True,
    )


DRILLS = [
    Drill(
        "idle-clients",
        f"{IDLE:,} connections that do nothing",
        idle,
        replace(CROWDED, least={OPEN: 0.98 * IDLE}),
        alerts=BURNING,
    ),
    Drill("slow-senders", f"{SLOW} clients who send 20 bytes a second", send_slowly, CROWDED, alerts=BURNING),
    Drill(
        "slow-readers", f"{SLOW} clients who ask for lists, and don't read them", read_slowly, CROWDED, alerts=BURNING
    ),
    Drill(
        "endless-bodies",
        f"{ENDLESS} bodies that never end",
        never_end,
        replace(CROWDED, counted={MOST_TAKEN: BODY + BUFFERS}, least={MOST_TAKEN: BODY}),
        alerts=BURNING,
    ),
    Drill(
        "herd",
        f"{HERD:,} requests at once",
        herd,
        Bounds(
            absent_reads=1,
            absent_writes=1,
            recovered=LASTS + 5,
            live=0.5,
            counted={SILENT: 0},
            least={"of the herd were answered 200": HERD / 2},
        ),
        alerts=BURNING,
    ),
    Drill(
        "impatient-clients",
        f"clients who give up after {PATIENCE:g} s",
        give_up,
        Bounds(counted={FOR_THE_DEAD: 2}, least={GAVE_UP: 100}),
        settings={"MAX_POOL_SIZE": "1", "WAIT_QUEUE_MULTIPLE": "1000"},  # so that they wait for longer than they will
        rate=2.0,  # nearly all queries are those clients'
        callers=2,
        alerts=FULL,
    ),
    overload(3),
    overload(10),
]
