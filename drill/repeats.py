"""Creates with an `Idempotency-Key`, repeated by whoever got no answer until there is one."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from drill.drills import Bounds, Drill
from drill.load import NO_CONNECTION, Load, in_doubt, person
from drill.members import BURNING
from drill.service import DrillError, Service

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
            first = await until_acknowledged(load, http, new, key)
            load.ledger.created(new["email"], first.answer)
            again = await until_acknowledged(load, http, new, key) if number % 2 else first
            if again.answer != first.answer:
                load.ledger.wrong.append(f"{new['email']}: {again.answer} for a repeat of what was {first.answer}")
            return first.tries + again.tries - 2

    try:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(service.url, timeout=timeout) as http:
            repeated = sum(await asyncio.gather(*(create(http, number) for number in range(WRITES))))
    finally:
        over.set()
        await killing
    load.notes |= {"creates": WRITES, "requests that had to be repeated": repeated}
    await service.wait_until_whole()


@dataclass(frozen=True)
class Acknowledged:
    """How often a create was sent until there was this answer, and how many seconds that took."""

    tries: int
    seconds: float
    answer: dict[str, Any]


async def until_acknowledged(
    load: Load, http: aiohttp.ClientSession, new: Mapping[str, Any], key: Mapping[str, str]
) -> Acknowledged:
    """Repeat a create with this key until it's acknowledged. Raises `DrillError` after `TRIES`, or for a refusal."""
    began = time.monotonic()
    for tries in range(1, TRIES + 1):
        status = NO_CONNECTION
        with suppress(aiohttp.ClientError, TimeoutError):
            async with http.post("/users", json=new, headers=key) as answer:
                status = answer.status
                if status == 201:
                    return Acknowledged(tries, time.monotonic() - began, await answer.json())
        if not in_doubt(status):
            load.ledger.refused(new["email"], f"{status} at try {tries} with a key of its own")
            raise DrillError(f"a create with a key of its own was answered {status}")
        load.ledger.unanswered(new["email"])
        await asyncio.sleep(PAUSE)
    raise DrillError(f"a create was not acknowledged after {TRIES} tries")


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
