"""Creates with an `Idempotency-Key`, repeated by whoever got no answer until there is one."""

from __future__ import annotations

import asyncio
import signal
import uuid

import aiohttp

from drill.drills import Bounds, Drill
from drill.load import NO_CONNECTION, Load, person
from drill.members import BURNING
from drill.service import Service

WRITES = 1_000
AT_ONCE = 32
KILLED = 3
"""Workers; and the primary once."""
TRIES = 100
PAUSE = 0.2


async def repeat(service: Service, load: Load) -> None:
    """Half of them are sent twice in any case: a repeat of what was acknowledged must change nothing, either."""
    over = asyncio.Event()
    killing = asyncio.create_task(_kill(service, over))
    repeated = 0
    limit = asyncio.Semaphore(AT_ONCE)

    async def create(http: aiohttp.ClientSession, number: int) -> int:
        async with limit:
            new, key = person(), {"Idempotency-Key": str(uuid.uuid4())}
            first = await _until_acknowledged(http, new, key)
            again = await _until_acknowledged(http, new, key) if number % 2 else first
            load.ledger.created(new["email"], first[1])
            if again[1] != first[1]:
                load.ledger.wrong.append(f"{new['email']}: {again[1]} for a repeat of what was {first[1]}")
            return first[0] + again[0] - 2

    try:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(service.url, timeout=timeout) as http:
            repeated = sum(await asyncio.gather(*(create(http, number) for number in range(WRITES))))
    finally:
        over.set()
        await killing
    load.notes |= {"creates": WRITES, "requests that had to be repeated": repeated}
    await service.wait_until_whole()


async def _until_acknowledged(
    http: aiohttp.ClientSession, new: dict[str, object], key: dict[str, str]
) -> tuple[int, dict[str, object]]:
    """How often it was sent, and the answer."""
    for tries in range(1, TRIES + 1):
        status = NO_CONNECTION
        try:
            async with http.post("/users", json=new, headers=key) as answer:
                status = answer.status
                if status == 201:
                    found: dict[str, object] = await answer.json()
                    return tries, found
        except (aiohttp.ClientError, TimeoutError):
            pass
        if status != NO_CONNECTION and status < 500:
            raise AssertionError(f"a create with a key of its own was answered {status}")
        await asyncio.sleep(PAUSE)
    raise TimeoutError(f"a create was not acknowledged after {TRIES} tries")


async def _kill(service: Service, over: asyncio.Event) -> None:
    for number in range(KILLED + 1):
        if over.is_set():
            return
        if number == 1:
            primary = await service.wait_for_primary()
            service.signal(signal.SIGKILL, service.mongod(primary))
        elif workers := service.workers():
            service.signal(signal.SIGKILL, min(workers))
        await asyncio.sleep(1)


DRILLS = [
    Drill(
        "repeated-creates",
        f"{WRITES:,} creates with keys, through {KILLED} killed workers and a killed primary",
        repeat,
        Bounds(),
        callers=16,
        rate=50.0,
        alerts=BURNING | {"WorkerRestarts"},
        quick=True,
    )
]
