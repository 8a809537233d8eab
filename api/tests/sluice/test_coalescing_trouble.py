"""What readers and writers once got wrong, or might: documents, keys, queues and servers at their worst."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, DuplicateKeyError, OperationFailure, PyMongoError, WriteConcernError

from sluice import deadline
from sluice.coalescing.coalescer import Limits
from sluice.drivers.pymongo.pool import AsyncPool
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, held, settle


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"a": document}
    return document


async def test_two_readers_of_one_collection_have_lanes_of_their_own(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.collection("docs").insert_one({"_id": 1, "token": 1})
    whole, part = (
        sluice.reader("docs", projection=projection, limits=Limits(lanes=1)) for projection in (None, {"_id": 1})
    )
    async with asyncio.timeout(10):  # the second waited for a lane that nobody gave back to it
        found = await asyncio.gather(*(reader.get(1) for reader in (whole, part, whole, part)))
    assert found == [{"_id": 1, "token": 1}, {"_id": 1}] * 2
    assert all(row.in_flight == row.waiting == 0 for row in sluice.snapshot().coalescers)


async def test_a_document_that_the_server_cannot_read_fails_alone(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    writer = sluice.writer("docs", limits=Limits(lanes=1))
    documents = [{"_id": number, "tree": nested(250 if number in (3, 6) else 1)} for number in range(10)]
    results = await settle([asyncio.create_task(writer.insert(document)) for document in documents])
    assert [number for number, result in enumerate(results) if isinstance(result, OperationFailure)] == [3, 6]
    assert await sluice.collection("docs").count_documents({}) == 8


async def test_an_insert_that_meets_an_open_transaction_waits_for_it_alone(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    """The server holds it up until the transaction ends, and with it the command that it came in."""
    sluice = await open_sluice()
    await sluice.collection("docs").create_index("key", unique=True)
    writer = sluice.writer("docs", limits=Limits(lanes=1, patience=60))

    async def insert(document: dict[str, Any]) -> Any:
        async with deadline.limit(20):
            return await writer.insert(document)

    documents: list[dict[str, Any]] = [
        {"key": number, **({"_id": number} if number % 2 else {})} for number in range(60)
    ]
    with MongoClient[dict[str, Any]](replica_set.url) as other, other.start_session() as session:
        session.start_transaction()
        other[sluice.database.name]["docs"].insert_one({"key": 30}, session=session)
        tasks = [asyncio.create_task(insert(document)) for document in documents]
        others = tasks[:30] + tasks[31:]
        async with asyncio.timeout(15):
            await asyncio.gather(*others)
        assert not tasks[30].done()
        session.commit_transaction()
    with pytest.raises(DuplicateKeyError):
        await tasks[30]
    assert sorted(await sluice.collection("docs").distinct("key")) == list(range(60))


async def test_a_batch_that_a_majority_confirms_late_is_acknowledged(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice()
    await sluice.collection("docs").insert_many([{"_id": 3, "key": 3}, {"_id": 5, "key": "another"}])
    writer = sluice.writer("docs", limits=Limits(lanes=1))
    late = {"code": 50, "codeName": "MaxTimeMSExpired", "errmsg": "waiting for replication timed out"}
    first = asyncio.create_task(writer.insert({"key": "alone"}))
    documents: list[dict[str, Any]] = [{"key": number} for number in range(3)]
    documents += [{"_id": number, "key": number} for number in range(3, 6)]
    others = [asyncio.create_task(writer.insert(document)) for document in documents]
    fail(replica_set, replica_set.primary(), ["insert"], times=2, writeConcernError=late)
    results = await settle([first, *others])
    assert isinstance(results[0], WriteConcernError)  # on its own, it has had all of its time
    assert [type(result).__name__ for result in results[4:]] == ["DuplicateKeyError", "int", "DuplicateKeyError"]
    assert not [result for result in results[1:4] if isinstance(result, Exception)]
    assert await sluice.collection("docs").count_documents({}) == 7


async def test_readers_and_writers_have_the_limits_of_the_options(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(lanes=1, batch=3)
    for together in (sluice.reader("docs"), sluice.writer("docs")):
        assert (together._coalescer.limits.lanes, together._coalescer.limits.batch) == (1, 3)


async def test_who_gave_up_takes_nobodys_place_in_the_queue(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    reader = sluice.reader("docs", limits=Limits(lanes=1, waiting=3))
    fail(replica_set, replica_set.primary(), ["find"], blockConnection=True, blockTimeMS=500)
    first, *others = (asyncio.create_task(reader.get(number)) for number in range(4))
    stats = sluice.snapshot().coalescers[0]
    await until(lambda: stats.waiting == 3)
    for task in others:
        task.cancel()
    await settle(others)
    assert stats.waiting == 0
    assert await asyncio.gather(first, *(reader.get(number) for number in range(3))) == [None] * 4


async def test_two_spellings_of_one_key_find_it_both(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.database.command("create", "names", collation={"locale": "en", "strength": 2})
    await sluice.collection("names").insert_one({"_id": "Ada"})
    reader = sluice.reader("names", limits=Limits(lanes=1))
    keys = ["first", "Ada", "ADA", "ada", "Bob"]
    ada = {"_id": "Ada"}
    assert await asyncio.gather(*map(reader.get, keys)) == [None, ada, ada, ada, None]


async def test_a_write_that_was_sent_never_ends_as_one_that_was_not(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    """The driver loses the connection, repeats the write, and finds the queue full: the first attempt counts."""
    sluice = await open_sluice()
    writer = sluice.writer("docs")
    await writer.insert({"_id": 0})
    primary = replica_set.primary()
    fail(replica_set, primary, ["insert"], times=2, blockConnection=True, blockTimeMS=300, closeConnection=True)
    insert = asyncio.create_task(writer.insert({"_id": 1}))
    await until(lambda: held(sluice) == 1)
    connected = sluice._connected
    assert connected is not None
    turnstile = connected.gate or cast("AsyncPool", connected.pools[primary]).turnstile
    turnstile.permits = turnstile.queue_limit = 0
    (result,) = await settle([insert])
    assert result == 1 or isinstance(result, ConnectionFailure)  # Motor's thread repeats it with its permit


KEYS_OF_TROUBLE: list[Any] = [
    "\ud800", "a\0b", 2**63, {1, 2}, {"a": object()}, DatetimeMS(2**61), Int64(2**62), math.inf, b"",
]  # fmt: skip


async def test_keys_that_cannot_be_asked_for_fail_as_in_a_single_query(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    collection = sluice.collection("docs")
    await collection.insert_many([{"_id": 1, "when": DatetimeMS(2**61)}, {"_id": 2}, {"_id": DatetimeMS(2**61)}])
    reader = sluice.reader("docs", limits=Limits(lanes=1))
    keys = ["first", 2, *KEYS_OF_TROUBLE, 1, 2, 3]
    alone = [await outcome(collection.find_one({"_id": key})) for key in keys]
    together = await asyncio.gather(*(outcome(reader.get(key)) for key in keys))
    assert together == alone
    assert sum(isinstance(result, type) for result in alone) >= 4


async def outcome(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except Exception as error:
        return type(error)


async def test_a_lone_operation_that_is_cancelled_gives_its_lane_to_who_waits(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice()
    reader = sluice.reader("docs", limits=Limits(lanes=1))
    fail(replica_set, replica_set.primary(), ["find"], blockConnection=True, blockTimeMS=500)
    first, *others = (asyncio.create_task(reader.get(number)) for number in range(4))
    await until(lambda: sluice.snapshot().coalescers[0].waiting == 3)
    first.cancel()
    others[0].cancel()
    results = await settle(others)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 2
    assert all(row.in_flight == row.waiting == 0 for row in sluice.snapshot().coalescers)


async def test_a_primary_that_is_lost_leaves_nobody_waiting(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    reader, writer = sluice.reader("docs"), sluice.writer("docs")
    await writer.insert({"_id": "first"})
    tasks: list[asyncio.Task[Any]] = []
    for number in range(200):
        tasks += [asyncio.create_task(writer.insert({"_id": number})), asyncio.create_task(reader.get(number))]
        if number == 100:
            replica_set.kill(replica_set.primary())
        await asyncio.sleep(0)
    async with asyncio.timeout(40):
        results = await settle(tasks)
    await until(lambda: sluice.ready)
    stored = {document["_id"] async for document in sluice.collection("docs").find()}
    assert {number for number, result in enumerate(results[::2]) if result == number} <= stored
    assert all(isinstance(result, dict | int | PyMongoError | None) for result in results)
    assert all(row.in_flight == row.waiting == 0 for row in sluice.snapshot().coalescers)


async def test_closing_while_batches_are_in_flight_ends_everyone(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice()
    reader, writer = sluice.reader("docs", limits=Limits(lanes=1)), sluice.writer("docs", limits=Limits(lanes=1))
    await writer.insert({"_id": "first"})
    fail(replica_set, replica_set.primary(), ["find", "insert"], times=4, blockConnection=True, blockTimeMS=200)
    tasks = [
        asyncio.create_task(operation) for number in range(9) for operation in (reader.get(number), writer.insert({}))
    ]
    await asyncio.sleep(0.25)
    async with asyncio.timeout(20):
        await sluice.close()
        results = await settle(tasks)
    assert not [result for result in results if isinstance(result, asyncio.CancelledError | asyncio.InvalidStateError)]
    assert all(row.in_flight == row.waiting == 0 for row in sluice.snapshot().coalescers)
