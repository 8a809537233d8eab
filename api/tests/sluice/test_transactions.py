"""A transaction that is done again as MongoDB asks, on both drivers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout

from sluice import DeadlineExceeded, PoolUnavailable, Sluice, deadline
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail
from tests.sluice.test_finishing import open_transactions


async def count(sluice: Sluice) -> int:
    document = await sluice.collection("counts").find_one({"_id": 1})
    return int(document["n"]) if document else 0


async def add(sluice: Sluice, session: Any) -> int:
    counts, log = sluice.collection("counts"), sluice.collection("log")
    changed: Any = await counts.find_one_and_update({"_id": 1}, {"$inc": {"n": 1}}, session=session)
    await log.insert_one({}, session=session)
    return int(changed["n"])


@pytest.fixture
async def sluice(open_sluice: OpenSluice) -> Sluice:
    sluice = await open_sluice()
    await sluice.collection("counts").insert_one({"_id": 1, "n": 0})
    await sluice.collection("log").insert_one({})
    return sluice


async def test_transactions_that_meet_are_done_one_after_the_other(sluice: Sluice) -> None:
    tries = 0

    async def work(session: Any) -> int:
        nonlocal tries
        tries += 1
        return await add(sluice, session)

    found = await asyncio.gather(*(sluice.with_transaction(work) for _ in range(10)))
    assert sorted(found) == list(range(10))
    assert (await count(sluice), await sluice.collection("log").count_documents({})) == (10, 11)
    assert tries > 10


async def test_what_the_work_raises_undoes_it(sluice: Sluice, replica_set: ReplicaSet) -> None:
    async def work(session: Any) -> None:
        await add(sluice, session)
        raise LookupError("out of stock")

    with pytest.raises(LookupError, match="out of stock"):
        await sluice.with_transaction(work)
    assert (await count(sluice), await sluice.collection("log").count_documents({})) == (0, 1)
    assert open_transactions(replica_set) == 0


@pytest.mark.parametrize(("command", "code"), [("insert", 112), ("commitTransaction", 91), ("commitTransaction", 251)])
async def test_trouble_that_passes_is_not_the_callers(
    sluice: Sluice, replica_set: ReplicaSet, command: str, code: int
) -> None:
    labels = ["TransientTransactionError"] if code != 91 else []
    fail(replica_set, replica_set.primary(), [command], errorCode=code, errorLabels=labels)
    await sluice.with_transaction(lambda session: add(sluice, session))
    assert (await count(sluice), await sluice.collection("log").count_documents({})) == (1, 2)


async def test_it_goes_on_no_longer_than_the_request(sluice: Sluice, replica_set: ReplicaSet) -> None:
    labels = ["TransientTransactionError"]
    fail(replica_set, replica_set.primary(), ["insert"], times=1_000_000, errorCode=112, errorLabels=labels)
    with pytest.raises((DeadlineExceeded, ExecutionTimeout)):
        async with deadline.limit(0.5):
            await sluice.with_transaction(lambda session: add(sluice, session))
    assert (await count(sluice), open_transactions(replica_set)) == (0, 0)


async def test_nothing_waits_for_a_member_once_the_time_is_up(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    """The abort, above all: whoever asked would wait for it, and there is nothing to end where nobody is."""
    sluice = await open_sluice(server_selection_timeout=60)
    await sluice.database.command("create", "docs")

    async def work(session: Any) -> None:
        await sluice.collection("docs").insert_one({"_id": 1}, session=session)
        for address in replica_set.addresses:
            replica_set.kill(address)
        await until(lambda: not sluice.ready)
        await sluice.collection("docs").insert_one({"_id": 2}, session=session)

    with pytest.raises((DeadlineExceeded, ExecutionTimeout)):
        async with asyncio.timeout(20), deadline.limit(2):
            await sluice.with_transaction(work)


async def test_nothing_is_begun_without_a_client(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.close()
    with pytest.raises(PoolUnavailable):
        await sluice.with_transaction(lambda session: add(sluice, session))
