"""Creates with an `Idempotency-Key`, repeated by whoever got no answer until there is one."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from pymongo import MongoClient

from drill.drills import Bounds, Drill
from drill.load import NO_CONNECTION, Load, in_doubt, person, understood
from drill.members import BURNING, fail_points
from drill.service import Document, DrillError, Service

WRITES = 1_000
AT_ONCE = 32
KILLED = 3
"""Workers; and the primary once."""
PAUSE = 0.2
LIMIT = 90.0
"""Seconds after which a create that is still not acknowledged ends its drill."""
TAKEN = "s until a create was acknowledged"
ORPHANS = 4
LEFT = "transactions were left open"
SLOWED_BY = 700
"""Milliseconds, for the record of a key: long enough to be killed meanwhile."""


async def repeat(service: Service, load: Load) -> None:
    """Half of them are sent twice in any case: a repeat of what was acknowledged must change nothing, either."""
    over = asyncio.Event()
    killing = asyncio.create_task(_kill(service, over))
    tries: list[int] = []
    taken: list[float] = []
    limit = asyncio.Semaphore(AT_ONCE)

    async def create(http: aiohttp.ClientSession, number: int) -> None:
        async with limit:
            new, key = person(), {"Idempotency-Key": str(uuid.uuid4())}
            first = await until_acknowledged(load, http, new, key)
            load.ledger.created(new, first.answer)
            again = await until_acknowledged(load, http, new, key) if number % 2 else first
            if again.answer != first.answer:
                load.ledger.wrong.append(f"{new['email']}: {again.answer} for a repeat of what was {first.answer}")
            tries.append(first.tries + again.tries - 2)
            taken.append(first.seconds)

    try:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(service.url, timeout=timeout) as http:
            await asyncio.gather(*(create(http, number) for number in range(WRITES)))
    finally:
        over.set()
        await killing
    load.notes |= {"creates": WRITES, "requests that had to be repeated": sum(tries), TAKEN: max(taken)}
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
    """Repeat a create with this key until it's acknowledged. Raises `DrillError` after `LIMIT`, or for a refusal."""
    began = time.monotonic()
    tries = 0
    load.ledger.asked(new)
    while time.monotonic() < began + LIMIT:
        tries += 1
        status, answer = await _post(load, http, new, key)
        if status == 201:
            return Acknowledged(tries, time.monotonic() - began, answer)
        if not in_doubt(status):
            load.ledger.refused(new["email"], f"{status} at try {tries} with a key of its own")
            raise DrillError(f"a create with a key of its own was answered {status}")
        load.ledger.unanswered(new)
        await asyncio.sleep(PAUSE)
    raise DrillError(f"a create was not acknowledged for {LIMIT:g} s")


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


async def orphan(service: Service, load: Load) -> None:
    """Both workers are killed while transactions of creates are open, which the server learns from nobody.

    One of their addresses is then asked for without a key, which has to wait for the transaction, or to be refused;
    that must cost nobody else anything.
    """
    held = [(person(), {"Idempotency-Key": str(uuid.uuid4())}) for _ in range(ORPHANS)]
    primary = await service.wait_for_primary()
    slow: dict[str, object] = {
        "failCommands": ["insert"], "namespace": "sluice.idempotency_keys", "blockConnection": True,
        "blockTimeMS": SLOWED_BY,
    }  # fmt: skip
    async with aiohttp.ClientSession(service.url, timeout=aiohttp.ClientTimeout(total=30)) as http:
        async with fail_points(service, slow):
            kept, given_up = held[1:], held[0]
            creates = [asyncio.create_task(until_acknowledged(load, http, new, key)) for new, key in kept]
            first_try = asyncio.create_task(once(load, http, *given_up))
            with service.member(primary) as client:
                open_ones = partial(_open_transactions, client)
                await service.until(lambda: open_ones() >= ORPHANS, 10, "no transactions were open")
                service.signal(signal.SIGKILL, *service.workers())
                killed = time.monotonic()
                left = open_ones()
        await first_try
        without_key = asyncio.create_task(once(load, http, given_up[0], {}))
        acknowledged = await asyncio.gather(*creates)
        await without_key
    for (new, _), create in zip(kept, acknowledged, strict=True):
        load.ledger.created(new, create.answer)
    failed = [record for record in load.records if record.began > killed and not record.good]
    load.notes |= {
        LEFT: left,
        TAKEN: max(create.seconds for create in acknowledged),
        "requests of others failed after the workers were killed": len(failed),
    }
    await service.wait_until_whole()


def _open_transactions(client: MongoClient[Document]) -> int:
    return int(client.admin.command("serverStatus")["transactions"]["currentOpen"])


async def once(load: Load, http: aiohttp.ClientSession, new: Mapping[str, Any], key: Mapping[str, str]) -> None:
    """A create that isn't repeated, and that may be refused, too: somebody else may have this address."""
    load.ledger.asked(new)
    status, answer = await _post(load, http, new, key)
    if status == 201:
        load.ledger.created(new, answer)
    else:
        load.ledger.unanswered(new)


async def _post(
    load: Load, http: aiohttp.ClientSession, new: Mapping[str, Any], key: Mapping[str, str]
) -> tuple[int, Any]:
    """The status of this create, and the answer."""
    status, body = NO_CONNECTION, b""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with http.post("/users", json=new, headers=key) as response:
            body = await response.read()
            status = response.status
    if in_doubt(status):
        load.others[status] += 1
    elif status != 201:
        return status, None
    elif (answer := understood(status, body)) is not None:
        return status, answer
    else:
        load.ledger.wrong.append(f"create: {status} with {body[:80]!r}")
        status = NO_CONNECTION
    return status, None


DRILLS = [
    Drill(
        "repeated-creates",
        f"{WRITES:,} creates with keys, through {KILLED} killed workers and a killed primary",
        repeat,
        Bounds(absent_reads=6, absent_writes=6, recovered=15, live=1.5, unseen=KILLED, counted={TAKEN: 15}),
        callers=16,
        rate=50.0,
        alerts=BURNING | {"WorkerRestarts"},
        quick=True,
    ),
    Drill(
        "orphaned-transaction",
        f"workers are killed between the inserts and the commits of {ORPHANS} creates with keys",
        orphan,
        Bounds(
            absent_reads=3,
            absent_writes=3,
            recovered=30,
            live=1.5,
            unseen=1,
            least={LEFT: ORPHANS},
            counted={TAKEN: 30, "requests of others failed after the workers were killed": 0},
        ),
        callers=32,
        rate=200.0,
        alerts=BURNING | {"WorkerRestarts"},
    ),
]
