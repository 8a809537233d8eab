"""Reads and writes that travel together, on both drivers: each caller gets what it would have got alone."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import ObjectId
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.errors import InvalidDocument
from bson.int64 import Int64
from pymongo.errors import DocumentTooLarge, DuplicateKeyError, WriteError

from sluice import DeadlineExceeded, PoolUnavailable, QueueFull, Sluice, deadline
from sluice.coalescing.coalescer import Limits
from sluice.coalescing.reader import key_of
from sluice.statistics.snapshot import CoalescerStats
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, settle, total, with_one_document

AN_ID = ObjectId("66f1a2b3c4d5e6f7a8b9c0d1")
A_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
STORED: list[Any] = [
    1, True, "1", str(AN_ID), AN_ID, 2.5, Int64(2**40), b"raw", Binary(b"raw", 5), A_UUID, Decimal128("7.5"), None, "",
    {"a": 1, "b": 2}, datetime(2026, 1, 1, tzinfo=UTC), "é\u0000x", False, math.nan, -3,
]  # fmt: skip
ASKED: list[Any] = [
    *STORED, 1.0, 0, 0.0, -0.0, Int64(1), Decimal128("1"), 2**40, float(2**40), {"b": 2, "a": 1}, {"$gt": 0}, [1],
    re.compile("^1"), Binary(b"raw", 0), str(A_UUID), "x", datetime(2026, 1, 1, 0, 0, 0, 999, tzinfo=UTC), 7.5, -3.0,
]  # fmt: skip


def stats(sluice: Sluice, kind: str) -> CoalescerStats:
    return next(row for row in total(sluice).coalescing if row.kind == kind)


async def outcome(awaitable: Any) -> Any:
    """The result, or the error's class and message: to compare two ways of asking."""
    try:
        return await awaitable
    except Exception as error:
        return type(error), getattr(error, "code", None)


async def test_every_kind_of_key_reads_as_in_a_single_query(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(client={"tz_aware": True, "uuidRepresentation": "standard"})
    collection = sluice.collection("keys")
    await collection.insert_many([{"_id": key, "n": number} for number, key in enumerate(STORED)])
    alone = [await outcome(collection.find_one({"_id": key})) for key in ASKED]
    reader = sluice.reader("keys")
    together = await asyncio.gather(*(outcome(reader.get(key)) for key in ASKED))
    for key, single, batched in zip(ASKED, alone, together, strict=True):
        assert repr(batched) == repr(single), key
    assert stats(sluice, "read").saved > 10


async def test_readers_of_the_same_key_get_a_copy_each(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.collection("slow").insert_one({"_id": 1, "tags": ["a"]})
    reader = sluice.reader("slow")
    documents = await asyncio.gather(*(reader.get(1) for _ in range(50)))
    assert documents == [{"_id": 1, "tags": ["a"]}] * 50
    for document in documents:
        assert document is not None
        document["tags"].append("mine")
    assert all(document == {"_id": 1, "tags": ["a", "mine"]} for document in documents)
    assert stats(sluice, "read").batches < 10


async def test_a_lone_read_waits_for_nobody(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    reader = sluice.reader("slow")
    for _ in range(10):
        assert await reader.get(1) == {"_id": 1}
    row = stats(sluice, "read")
    assert (row.operations, row.batches, row.saved, row.wait_time.count) == (10, 10, 0, 0)


async def test_a_read_sees_every_write_that_was_acknowledged_before_it_began(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    collection = sluice.collection("slow")
    await collection.insert_one({"_id": 1, "n": 0})
    reader = sluice.reader("slow")
    done = False

    async def keep_reading() -> None:
        while not done:
            await reader.get(1)

    background = [asyncio.create_task(keep_reading()) for _ in range(40)]
    for number in range(1, 100):
        await collection.update_one({"_id": 1}, {"$set": {"n": number}})
        document = await reader.get(1)
        assert document is not None
        assert document["n"] == number
    done = True
    await settle(background)
    assert stats(sluice, "read").mean_batch_size > 2


async def test_a_cancelled_reader_touches_nobody_else(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.collection("slow").insert_many([{"_id": number} for number in range(100)])
    reader = sluice.reader("slow")
    tasks = [asyncio.create_task(reader.get(number)) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[1::2]:
        task.cancel()
    results = await settle(tasks)
    assert results[::2] == [{"_id": number} for number in range(0, 100, 2)]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[1::2])


async def test_each_caller_keeps_its_own_deadline(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    reader = sluice.reader("slow", limits=Limits(lanes=1))
    fail(replica_set, replica_set.primary(), ["find"], times=2, blockConnection=True, blockTimeMS=700)

    async def limited(seconds: float) -> Any:
        async with deadline.limit(seconds):
            return await reader.get(1)

    first = asyncio.create_task(limited(10))
    await until(lambda: stats(sluice, "read").in_flight == 1)
    hasty, patient = asyncio.create_task(limited(0.2)), asyncio.create_task(limited(10))
    results = await settle([first, hasty, patient])
    assert isinstance(results[1], DeadlineExceeded)
    assert [results[0], results[2]] == [{"_id": 1}, {"_id": 1}]


async def test_a_batch_that_fails_tells_each_of_its_callers(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    reader = sluice.reader("slow", limits=Limits(lanes=1))
    fail(replica_set, replica_set.primary(), ["find"], times=2, errorCode=2)
    results = await settle([asyncio.create_task(reader.get(number)) for number in range(20)])
    errors = [result for result in results if isinstance(result, Exception)]
    assert len({id(error) for error in errors}) == len(errors) >= 19
    assert {getattr(error, "code", None) for error in errors} == {2}
    assert await reader.get(1) == {"_id": 1}


async def test_too_many_waiting_reads_are_refused(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    reader = sluice.reader("slow", limits=Limits(lanes=1, waiting=5))
    results = await settle([asyncio.create_task(reader.get(number)) for number in range(10)])
    assert [type(result) for result in results].count(QueueFull) == 4
    assert stats(sluice, "read").refused == 4


async def test_batches_keep_their_limits(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    reader = sluice.reader("slow", limits=Limits(lanes=1, batch=10))
    await asyncio.gather(*(reader.get(number) for number in range(101)))
    assert stats(sluice, "read").batches == 1 + 10


async def test_a_projection_belongs_to_the_reader(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.collection("slow").insert_many([{"_id": number, "a": 1, "b": 2} for number in range(20)])
    reader = sluice.reader("slow", projection={"a": 1})
    assert await asyncio.gather(*(reader.get(number) for number in range(20))) == [
        {"_id": number, "a": 1} for number in range(20)
    ]
    with pytest.raises(ValueError, match="must keep _id"):
        sluice.reader("slow", projection={"_id": 0, "a": 1})


async def test_a_collation_of_the_collection_is_respected(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.database.command("create", "names", collation={"locale": "en", "strength": 2})
    await sluice.collection("names").insert_many([{"_id": name} for name in ("Ada", "Bob", "cid")])
    reader = sluice.reader("names")
    found = await asyncio.gather(*(reader.get(key) for key in ("x", "y", "ada", "BOB", "cid", "dora")))
    assert found == [None, None, {"_id": "Ada"}, {"_id": "Bob"}, {"_id": "cid"}, None]


async def test_many_inserts_travel_together_and_all_arrive(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    writer = sluice.writer("docs")
    ids = await asyncio.gather(*(writer.insert({"n": number}) for number in range(300)))
    assert len(set(ids)) == 300
    assert await sluice.collection("docs").count_documents({}) == 300
    assert stats(sluice, "write").batches < 20


async def test_a_document_is_written_as_it_was_when_insert_was_called(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    writer = sluice.writer("docs", limits=Limits(lanes=1))
    first = asyncio.create_task(writer.insert({"_id": 0}))
    document = {"_id": 1, "tags": ["a"]}
    second = asyncio.create_task(writer.insert(document))
    await until(lambda: stats(sluice, "write").waiting == 1)
    document["tags"] = "changed meanwhile"
    await settle([first, second])
    assert await sluice.collection("docs").find_one({"_id": 1}) == {"_id": 1, "tags": ["a"]}


async def test_each_insert_fails_for_itself(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.database.command("create", "docs", validator={"n": {"$type": "int"}})
    await sluice.collection("docs").create_index("email", unique=True)
    writer = sluice.writer("docs")
    documents: list[dict[str, Any]] = [{"n": number, "email": f"{number}@x"} for number in range(20)]
    documents[5]["email"] = "4@x"
    documents[7]["n"] = "seven"
    documents[9]["n"] = {1, 2}
    documents[11]["blob"] = b"x" * (17 << 20)
    results = await settle([asyncio.create_task(writer.insert(document)) for document in documents])
    failures = {number: result for number, result in enumerate(results) if isinstance(result, Exception)}
    assert sorted(failures) == [5, 7, 9, 11]
    assert isinstance(failures[5], DuplicateKeyError)
    assert failures[5].details is not None
    assert failures[5].details["keyPattern"] == {"email": 1}
    assert isinstance(failures[7], WriteError)
    assert failures[7].code == 121
    assert isinstance(failures[9], InvalidDocument)
    assert isinstance(failures[11], DocumentTooLarge)
    assert await sluice.collection("docs").count_documents({}) == 16


async def test_an_insert_that_is_cancelled_on_its_way_harms_nobody(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    writer = sluice.writer("docs")
    tasks = [asyncio.create_task(writer.insert({"_id": number})) for number in range(100)]
    await asyncio.sleep(0)
    for task in tasks[50:60]:
        task.cancel()
    await settle(tasks)
    found = {document["_id"] async for document in sluice.collection("docs").find()}
    assert found >= set(range(50)) | set(range(60, 100))


async def test_an_unknown_outcome_is_told_to_exactly_those_whose_outcome_is_unknown(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice()
    writer = sluice.writer("docs", limits=Limits(lanes=1))
    fail(
        replica_set, replica_set.primary(), ["insert"], times=1, writeConcernError={"code": 64, "errmsg": "waiting"}
    )  # of the first batch, which is written nevertheless
    results = await settle([asyncio.create_task(writer.insert({"_id": number})) for number in range(20)])
    assert isinstance(results[0], Exception)
    assert results[1:] == list(range(1, 20))
    fail(replica_set, replica_set.primary(), ["insert"], times=1, writeConcernError={"code": 64, "errmsg": "waiting"})
    await settle([asyncio.create_task(writer.insert({"_id": "alone"}))])
    assert await sluice.collection("docs").count_documents({}) == 21


async def test_inserts_survive_a_lost_connection_once_each(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    writer = sluice.writer("docs")
    await writer.insert({"_id": "first"})
    fail(replica_set, replica_set.primary(), ["insert"], times=1, closeConnection=True)
    results = await settle([asyncio.create_task(writer.insert({"_id": number})) for number in range(50)])
    assert results == list(range(50))  # repeated by the driver, as a retryable write
    assert await sluice.collection("docs").count_documents({}) == 51


async def test_operations_that_hang_hold_up_nobody_else(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(max_pool_size=20)
    await sluice.collection("slow").insert_many([{"_id": number} for number in range(60)])
    reader = sluice.reader("slow")
    await asyncio.gather(*(reader.get(number) for number in range(60)))
    fail(replica_set, replica_set.primary(), ["find"], times=2, blockConnection=True, blockTimeMS=5000)
    hanging = [asyncio.create_task(reader.get(number)) for number in range(2)]
    await until(lambda: stats(sluice, "read").in_flight == 2)
    async with asyncio.timeout(4):
        assert await asyncio.gather(*(reader.get(number) for number in range(60))) == [{"_id": n} for n in range(60)]
    assert not any(task.done() for task in hanging)
    await settle(hanging)
    assert stats(sluice, "read").in_flight == 0


async def test_closing_sends_away_who_waits(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    fail(replica_set, replica_set.primary(), ["find"], times=1, blockConnection=True, blockTimeMS=500)
    reader = sluice.reader("slow", limits=Limits(lanes=1))
    tasks = [asyncio.create_task(reader.get(1)) for _ in range(3)]
    await until(lambda: stats(sluice, "read").waiting == 2)
    await reader.close()
    results = await settle(tasks)
    assert [type(result) for result in results[1:]] == [PoolUnavailable] * 2
    with pytest.raises(PoolUnavailable):
        await asyncio.gather(reader.get(1), reader.get(1))


def test_a_document_that_does_not_begin_with_its_id_has_no_key() -> None:
    assert key_of(b"\x0c\x00\x00\x00\x10a\x00\x01\x00\x00\x00\x00") is None
