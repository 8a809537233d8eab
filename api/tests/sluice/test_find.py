"""`Sluice.find` finds, raises and costs the members what the driver's `find` does; on both drivers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import bson
import pymongo
import pytest
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidDocument
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern
from pymongo.collation import Collation
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, Primary, PrimaryPreferred, Secondary
from pymongo.server_api import ServerApi

from sluice import DeadlineExceeded, PoolUnavailable, QueueFull, Sluice, deadline
from sluice.drivers.pymongo.finding import _split
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, held, settle, slow, total, with_one_document
from tests.sluice.test_overload import LABELS, REFUSED, Sent, overloaded

NUMBERS = 300
STANDARD = {"uuid_representation": 4}


async def with_documents(sluice: Sluice, write_concern: int = 1) -> None:
    documents = [
        {
            "_id": number,
            "third": number % 3,
            "text": ["a", "A", "b", "É", "e"][number % 5],
            "deep": {"list": [number, {"x": None}], "empty": {}},
            "key": uuid.UUID(int=number),
            "at": datetime(2026, 1, 1, 12, 30, number % 60, tzinfo=UTC),
        }
        for number in range(NUMBERS)
    ]
    collection = sluice.collection("docs", STANDARD)
    await collection.with_options(write_concern=WriteConcern(write_concern)).insert_many(documents)


async def theirs(
    sluice: Sluice,
    filter: Any,  # noqa: A002
    projection: Any = None,
    *,
    read_preference: Any = None,
    read_concern: Any = None,
    codec_options: Any = None,
    name: str = "docs",
    **options: Any,
) -> list[Any]:
    """The same by the driver's `find`."""
    of = sluice.collection(name, codec_options)
    of = of.with_options(read_preference=read_preference, read_concern=read_concern)
    found: list[Any] = await of.find(filter, projection, **options).to_list(None)
    return found


async def ours(sluice: Sluice, *arguments: Any, name: str = "docs", **options: Any) -> list[Any]:
    return await sluice.find(name, *arguments, **options)


async def outcome(awaitable: Any) -> Any:
    """What was found, or how that failed."""
    try:
        return await awaitable
    except Exception as error:
        return type(error), getattr(error, "code", None), type(getattr(error, "details", None))


CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "all": (({},), {}),
    "none": (({"_id": -1},), {}),
    "one": (({"_id": 7},), {"limit": 1}),
    "no document for one": (({"_id": -1},), {"limit": 1}),
    "a third": (({"third": 1, "_id": {"$gte": 20}},), {}),
    "a filter as bytes": ((RawBSONDocument(bson.encode({"third": 2})),), {}),
    "a field called query": (({"query": None, "third": 1},), {}),
    "its way of old": (({"$query": {"third": 1}, "$orderby": {"_id": -1}},), {}),
    "two fields": (({}, {"third": 1, "text": True}), {}),
    "without a field": (({}, {"deep": 0, "at": False}), {}),
    "no projection but an empty one": (({}, {}), {}),
    "names for a projection": (({}, ["third"]), {}),
    "without its id": (({}, {"third": 1, "_id": 0}), {}),
    "sorted": (({},), {"sort": [("third", -1), ("_id", 1)]}),
    "sorted by names": (({},), {"sort": ["third", ("_id", -1)]}),
    "sorted by nothing": (({},), {"sort": []}),
    "skipped": (({},), {"sort": [("_id", 1)], "skip": 290}),
    "all skipped": (({},), {"skip": 1000}),
    "the first": (({},), {"sort": [("_id", -1)], "limit": 1}),
    "the second": (({},), {"sort": [("_id", -1)], "skip": 1, "limit": 1}),
    "a page": (({},), {"sort": [("_id", -1)], "skip": 20, "limit": 150}),
    "more than there are": (({},), {"limit": 5000}),
    "as many as there are": (({},), {"limit": NUMBERS}),
    "any letter": (({"text": "a"},), {"collation": Collation("en", strength=2), "sort": [("_id", 1)]}),
    "any accent": (({},), {"collation": Collation("fr", strength=1), "sort": [("text", 1), ("_id", 1)]}),
    "commented": (({},), {"comment": "why"}),
    "commented by a document": (({},), {"comment": {"why": ["so"]}}),
    "by a majority": (({},), {"read_concern": ReadConcern("majority")}),
    "linearizable": (({"_id": 3},), {"read_concern": ReadConcern("linearizable")}),
    "of the primary": (({},), {"read_preference": Primary()}),
    "of the nearest": (({},), {"read_preference": Nearest(), "sort": [("_id", 1)]}),
    "of a secondary": (({},), {"read_preference": Secondary(), "sort": [("_id", 1)]}),
    "with a zone": (({},), {"codec_options": {"tz_aware": True, **STANDARD}}),
    "keys as they are": (({},), {"codec_options": STANDARD}),
    "raw": (({},), {"codec_options": {"document_class": RawBSONDocument}}),
}


@pytest.mark.parametrize("case", CASES)
async def test_it_finds_what_the_driver_finds(open_sluice: OpenSluice, case: str) -> None:
    sluice = await open_sluice()
    await with_documents(sluice, 3)
    arguments, options = CASES[case]
    found = await ours(sluice, *arguments, **options)
    assert found == await theirs(sluice, *arguments, **options)
    assert [list(document) for document in found] == [
        list(document) for document in await theirs(sluice, *arguments, **options)
    ]
    assert held(sluice) == 0
    assert bool(found) == (case not in ("none", "no document for one", "all skipped"))


async def test_dates_beyond_pythons_are_as_the_codec_says(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    later = DatetimeMS(300_000_000_000_000)
    await sluice.collection("docs").insert_many([{"_id": 1, "at": later}, {"_id": 2, "at": DatetimeMS(0)}])
    lenient = {"datetime_conversion": DatetimeConversion.DATETIME_AUTO}
    found = await ours(sluice, {}, sort=[("_id", 1)], codec_options=lenient)
    assert found == [{"_id": 1, "at": later}, {"_id": 2, "at": datetime(1970, 1, 1)}]  # noqa: DTZ001 as it is
    assert found == await theirs(sluice, {}, sort=[("_id", 1)], codec_options=lenient)
    failed = await outcome(ours(sluice, {}))
    assert failed[0] is bson.errors.InvalidBSON
    assert failed == await outcome(theirs(sluice, {}))
    assert held(sluice) == 0


async def open_cursors(sluice: Sluice) -> int:
    status: dict[str, Any] = await sluice.database.command("serverStatus")
    return int(status["metrics"]["cursor"]["open"]["total"])


@pytest.mark.parametrize("limit", [0, 20])
async def test_an_answer_of_several_replies_is_complete(open_sluice: OpenSluice, limit: int) -> None:
    """MongoDB's replies have 16 MiB at most."""
    sluice = await open_sluice()
    await sluice.collection("docs").insert_many([{"_id": number, "text": "x" * 1_000_000} for number in range(40)])
    others = await open_cursors(sluice)  # the secondaries', who copy
    found = await ours(sluice, {}, sort=[("_id", 1)], limit=limit)
    assert [document["_id"] for document in found] == list(range(limit or 40))
    assert {len(document["text"]) for document in found} == {1_000_000}
    await until(lambda: held(sluice) == 0)
    assert await open_cursors(sluice) <= others


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "operator": (({"_id": {"$nope": 1}},), {}),
    "projection": (({}, {"a": 1, "b": 0}), {}),
    "sort": (({},), {"sort": [("a", 5)]}),
    "sort's name": (({},), {"sort": [(1, 1)]}),
    "sort's direction": (({},), {"sort": [("a", 1.5)]}),
    "filter": ((5,), {}),
    "filter for one": ((5,), {"limit": 1}),
    "filter of names": ((["a"],), {}),
    "value": (({"a": object()},), {}),
    "key": (({"a": uuid.UUID(int=1)},), {}),
    "collation": (({},), {"collation": Collation("nowhere")}),
    "kind of collation": (({},), {"collation": "en"}),
    "size": (({"a": "x" * (17 << 20)},), {}),
    "read concern": (({},), {"read_concern": ReadConcern("nothing")}),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_raises_what_the_driver_raises(open_sluice: OpenSluice, case: str) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    arguments, options = WRONG[case]
    failed = await outcome(ours(sluice, *arguments, **options))
    assert isinstance(failed, tuple)
    assert failed == await outcome(theirs(sluice, *arguments, **options))
    assert held(sluice) == 0
    assert total(sluice).pool.closed == {}
    assert InvalidDocument.__name__ != DocumentTooLarge.__name__  # either may be meant above


@pytest.mark.parametrize("name", ["limit", "skip"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "1", None])
async def test_a_limit_or_skip_that_is_none_is_refused_by_name(open_sluice: OpenSluice, name: str, value: Any) -> None:
    sluice = await open_sluice()
    with pytest.raises(ValueError, match=f"^{name}={value!r}: allowed is a whole number, 0 or more$"):
        await ours(sluice, {}, **{name: value})


async def test_without_a_client_there_is_nothing_to_ask(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await sluice.close()
    with pytest.raises(PoolUnavailable):
        await ours(sluice, {})


# What the members see


@contextmanager
def profiled(replica_set: ReplicaSet, sluice: Sluice) -> Iterator[Callable[[], list[tuple[str, dict[str, Any]]]]]:
    """The queries of `docs` meanwhile, in the members' own words: role and command."""
    clients = {address: replica_set.direct(address) for address in replica_set.addresses}
    try:
        databases = {address: client[sluice.database.name] for address, client in clients.items()}
        for database in databases.values():
            database.command("profile", 2)
        primary = replica_set.primary()

        def seen() -> list[tuple[str, dict[str, Any]]]:
            return [
                ("primary" if address == primary else "secondary", row["command"])
                for address, database in databases.items()
                for row in database["system.profile"].find({"op": "query", "command.find": "docs"}).sort("ts")
            ]

        yield seen
        for database in databases.values():
            database.command("profile", 0)
    finally:
        for client in clients.values():
            client.close()


async def test_the_members_are_asked_as_the_driver_asks(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str
) -> None:
    sluice = await open_sluice(client={"server_api": ServerApi("1")})
    await with_documents(sluice, 3)
    many: dict[str, Any] = {
        "sort": [("third", 1)],
        "skip": 2,
        "limit": 3,
        "collation": Collation("en"),
        "comment": "why",
        "read_concern": ReadConcern("majority"),
    }
    with profiled(replica_set, sluice) as seen:
        for ask in (ours, theirs):
            await ask(sluice, {"third": 1}, {"text": 1}, **many)
            await ask(sluice, {"third": 2}, read_preference=Secondary(), comment="far")
            await ask(sluice, {"third": 2}, read_preference=PrimaryPreferred(max_staleness=120), comment="near")
        rows = seen()
    for comment, role in (("why", "primary"), ("far", "secondary"), ("near", "primary")):
        both = [(where, command) for where, command in rows if command.get("comment") == comment]
        mine, other = sorted(both, key=lambda row: "lsid" in row[1])  # each of two secondaries may have been asked
        assert mine[0] == other[0] == role
        for _, command in (mine, other):
            assert command["apiVersion"] == "1"
            assert "$clusterTime" in command
        if driver == "pymongo":
            assert "lsid" not in mine[1]
        for each in ("lsid", "$clusterTime", "batchSize"):
            mine[1].pop(each, None)
            other[1].pop(each, None)
        assert mine[1] == other[1]
        assert list(mine[1])[:2] == ["find", "filter"]


async def test_cluster_time_goes_on(open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str) -> None:
    if driver == "motor":
        pytest.skip("Motor has the driver's way only")
    sluice = await open_sluice(heartbeat_frequency=60)
    await with_one_document(sluice)
    client: Any = sluice.client
    with MongoClient[dict[str, Any]](replica_set.url) as other, other.start_session() as session:
        for number in range(5):
            other[sluice.database.name]["docs"].insert_one({"_id": number}, session=session)
            theirs_time: Any = session.cluster_time
            assert len(await ours(sluice, {})) == number + 1
            assert client._topology.max_cluster_time()["clusterTime"] >= theirs_time["clusterTime"]
    async with client.start_session() as mine:
        mine.advance_cluster_time(client._topology.max_cluster_time())
        assert await sluice.collection("docs").count_documents({}, session=mine) == 5


# Who takes the driver's way


async def is_the_drivers(sluice: Sluice, replica_set: ReplicaSet) -> bool:
    with profiled(replica_set, sluice) as seen:
        assert await ours(sluice, {}) == await theirs(sluice, {})
        mine, other = (command for _, command in seen())
    assert "lsid" in other
    return "lsid" in mine


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"retryReads": False}, False),
        ({"event_listeners": [Sent()]}, True),
        ({"compressors": "zlib"}, True),
        ({"timeoutMS": 5000}, True),
    ],
    ids=["plain", "not repeated", "listened to", "compressed", "with a timeout"],
)
async def test_who_needs_the_drivers_machinery_has_it(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str, changes: dict[str, Any], expected: bool
) -> None:
    sluice = await open_sluice(client=changes)
    await with_documents(sluice)
    assert await is_the_drivers(sluice, replica_set) == (expected or driver == "motor")


async def test_a_compressed_answer_takes_one_connection_once(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(client={"compressors": "zlib"})
    await with_documents(sluice)
    before = total(sluice).pool.wait_time.count
    assert len(await ours(sluice, {})) == NUMBERS
    assert total(sluice).pool.wait_time.count == before + 1


async def test_a_session_that_is_bound_sees_its_own_writes(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str
) -> None:
    if driver == "motor":
        pytest.skip("Motor's sessions can't be bound")
    sluice = await open_sluice()
    await with_documents(sluice)
    async with sluice.transaction() as session:
        async with session.bind(end_session=False):
            await sluice.collection("docs").insert_one({"_id": -1})
            assert await ours(sluice, {"_id": -1}) == [{"_id": -1}]
            assert await sluice.reader("docs").get(-1) == {"_id": -1}
        assert await ours(sluice, {"_id": -1}) == []
    assert await ours(sluice, {"_id": -1}) == [{"_id": -1}]
    async with sluice.client.start_session() as session, session.bind():
        assert await is_the_drivers(sluice, replica_set)


async def test_who_listens_hears_of_each(open_sluice: OpenSluice) -> None:
    sent = Sent()
    sluice = await open_sluice(client={"event_listeners": [sent]})
    await with_documents(sluice)
    before = sent.number
    for _ in range(7):
        await ours(sluice, {}, limit=3)
    assert sent.number == before + 7


async def test_the_drivers_log_has_each(open_sluice: OpenSluice, caplog: pytest.LogCaptureFixture) -> None:
    sluice = await open_sluice()
    await with_documents(sluice)
    with caplog.at_level(logging.DEBUG, "pymongo.command"):
        for _ in range(3):
            await ours(sluice, {"third": 1}, limit=3)
    started = [
        record
        for record in caplog.records
        if "docs" in record.getMessage() and "Command started" in record.getMessage()
    ]
    assert len(started) == 3


# When it fails

FAILURES: dict[str, dict[str, Any]] = {
    "connection closed": {"closeConnection": True},
    "not primary": {"errorCode": 10107},
    "shutdown in progress": {"errorCode": 91},
    "interrupted at shutdown": {"errorCode": 11600},
    "primary stepped down": {"errorCode": 189},
    "host unreachable": {"errorCode": 6},
    "time limit exceeded": {"errorCode": 262},
    "cursor not found": {"errorCode": 43},
    "not allowed": {"errorCode": 13},
    "too late": {"errorCode": 50},
    "anything": {"errorCode": 8},
}


async def failing(
    replica_set: ReplicaSet, sluice: Sluice, ask: Any, times: int, failure: dict[str, Any]
) -> tuple[Any, int]:
    """How a query ends whose first commands fail, and how many did."""
    primary = await asyncio.to_thread(replica_set.primary)
    with replica_set.direct(primary) as client:
        data = {"failCommands": ["find"], "appName": sluice.app_name, **failure}
        before = client.admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)["count"]
        ended = await outcome(ask(sluice, {"_id": 5}, {"third": 1}))
        count = client.admin.command("configureFailPoint", "failCommand", mode="off")["count"]
    await until(lambda: sluice.ready and held(sluice) == 0)
    return ended, count - before


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_ends_as_the_drivers(open_sluice: OpenSluice, replica_set: ReplicaSet, failure: str) -> None:
    """Also where it goes on, and by as many commands."""
    sluice = await open_sluice(server_selection_timeout=20)
    await with_documents(sluice)
    ends = {}
    for times in (1, 2, 50):
        mine = await failing(replica_set, sluice, ours, times, FAILURES[failure])
        other = await failing(replica_set, sluice, theirs, times, FAILURES[failure])
        assert mine == other
        ends[times] = mine
    assert isinstance(ends[50][0], tuple)
    assert ends[50][1] in (1, 2)
    assert total(sluice).pool.waiting == 0


async def test_retries_that_are_switched_off_stay_off(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(client={"retryReads": False})
    await with_documents(sluice)
    for ask in (ours, theirs):
        ended, count = await failing(replica_set, sluice, ask, 1, FAILURES["connection closed"])
        assert issubclass(ended[0], ConnectionFailure)
        assert count == 1


async def test_a_query_finds_no_member_once_not_twice(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(server_selection_timeout=1)
    await with_one_document(sluice)
    started = time.monotonic()
    with pytest.raises(ServerSelectionTimeoutError):
        await ours(sluice, {}, read_preference=Secondary([{"somewhere": "else"}]))
    assert 1 <= time.monotonic() - started < 1.9


async def test_a_full_queue_refuses_it_once(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)
    holder = asyncio.create_task(slow(sluice, 1))
    await until(lambda: total(sluice).pool.active_connections == 1)
    waiter = asyncio.create_task(ours(sluice, {}))
    await until(lambda: total(sluice).pool.waiting == 1)
    with pytest.raises(QueueFull):
        await ours(sluice, {})
    assert total(sluice).pool.refused_queue_full == 1
    await settle([holder, waiter])
    assert held(sluice) == 0


async def test_little_is_repeated_of_what_an_overloaded_member_refuses(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice, requests = await open_sluice(max_pool_size=20), 1_000
    with overloaded(replica_set, ["find"], {"activationProbability": 0.3}):

        async def caller() -> list[Any]:
            return [await outcome(ours(sluice, {"_id": 1}, limit=1)) for _ in range(requests // 20)]

        ended = [each for some in await asyncio.gather(*(caller() for _ in range(20))) for each in some]
    failed = [each for each in ended if each != []]
    assert {each[:2] for each in failed} == {(OperationFailure, REFUSED)}
    refused = total(sluice).pool.overloaded
    assert 0 < refused - len(failed) <= 0.1 * requests + 1  # commands beyond one for each
    assert 0.7 < 1 - len(failed) / requests < 0.9


async def test_an_overloaded_member_is_asked_by_half_as_many(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(max_pool_size=40)
    await ours(sluice, {})
    with overloaded(replica_set, ["find"], {"times": 1}):
        failed = await outcome(ours(sluice, {}))
    assert failed[:2] == (OperationFailure, REFUSED)  # nothing was saved up for a repetition
    assert total(sluice).pool.overloaded == 1
    assert 20 <= total(sluice).pool.permits_given < 40
    await until(lambda: total(sluice).pool.permits_given == 40)


async def test_what_is_refused_is_repeated_as_often_as_the_driver_does(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice()
    await with_documents(sluice)
    refusal = {"errorCode": REFUSED, "errorLabels": LABELS}
    ends = []
    for ask in (ours, theirs):
        for _ in range(100):  # earns the budget
            await ask(sluice, {"_id": 1})
        ends.append(await failing(replica_set, sluice, ask, 50, refusal))
    assert ends[0] == ends[1]
    assert ends[0][1] > 1


# Time and who goes


async def test_a_slow_query_ends_on_the_server(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    before = total(sluice).pool.total_created
    with pytest.raises(ExecutionTimeout):
        async with deadline.limit(1):
            await ours(sluice, {"$where": "sleep(20000) || true"}, name="slow")
    assert held(sluice) == 0
    assert (total(sluice).pool.total_created, total(sluice).pool.closed) == (before, {})


async def test_a_member_that_is_silent_costs_a_request_its_time_only(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(heartbeat_frequency=10)
    await with_one_document(sluice)
    primary = replica_set.primary()
    replica_set.freeze(primary)
    try:
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, PyMongoError)):
            async with deadline.limit(0.5):
                await ours(sluice, {}, name="slow")
        assert time.monotonic() - started < 2
        await until(lambda: held(sluice) == 0)
    finally:
        replica_set.thaw(primary)


async def test_the_drivers_own_timeout_ends_it_as_the_drivers(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    await with_documents(sluice)
    fail(replica_set, replica_set.primary(), ["find"], times=100, blockConnection=True, blockTimeMS=1500)
    for ask in (ours, theirs):
        with pytest.raises(PyMongoError) as late, pymongo.timeout(0.3):
            await ask(sluice, {})
        assert late.value.timeout
    fail(replica_set, replica_set.primary(), ["find"], times=0)
    await until(lambda: held(sluice) == 0)
    assert len(await ours(sluice, {})) == NUMBERS


async def test_who_is_cancelled_leaves_nothing_behind(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(max_pool_size=5)
    await with_documents(sluice)
    fail(replica_set, replica_set.primary(), ["find"], times=5, blockConnection=True, blockTimeMS=800)
    tasks = [asyncio.create_task(ours(sluice, {})) for _ in range(10)]  # half of them wait for a connection
    await until(lambda: total(sluice).pool.active_connections == 5)
    for task in tasks:
        task.cancel()
    assert {type(each) for each in await settle(tasks)} == {asyncio.CancelledError}
    await until(lambda: held(sluice) == 0)
    assert len(await ours(sluice, {})) == NUMBERS


async def test_a_primary_that_is_killed_costs_no_query(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(
        max_pool_size=8, wait_queue_multiple=50, wait_queue_timeout=20, server_selection_timeout=20
    )
    await with_documents(sluice, 3)
    end = time.monotonic() + 6
    outcomes: list[Any] = []

    async def work() -> None:
        while time.monotonic() < end:
            outcomes.append(await outcome(ours(sluice, {"third": 1}, sort=[("_id", 1)], limit=5)))

    workers = [asyncio.create_task(work()) for _ in range(20)]
    await until(lambda: len(outcomes) > 200)
    replica_set.kill(replica_set.primary())
    await settle(workers)
    failed = [each for each in outcomes if isinstance(each, tuple)]
    assert failed == []
    assert {tuple(document["_id"] for document in each) for each in outcomes} == {(1, 4, 7, 10, 13)}
    await until(lambda: held(sluice) == 0)
    pool = total(sluice).pool
    assert pool.total_created - sum(pool.closed.values()) == pool.current_connections


# A reply's bytes


def reply(documents: list[dict[str, Any]], **more: Any) -> bytes:
    return bson.encode({"cursor": {"firstBatch": documents, "id": bson.Int64(0), "ns": "a.b"}, "ok": 1.0, **more})


def test_a_reply_is_taken_apart_where_it_is_complete_and_good() -> None:
    documents: list[dict[str, Any]] = [{"_id": number, "x": "y" * number} for number in range(1200)]
    assert _split(reply(documents)) == ([bson.encode(document) for document in documents], b"")
    assert _split(reply([])) == ([], b"")
    seen = {"clusterTime": bson.Timestamp(5, 1), "signature": {"hash": b"x", "keyId": 1}}
    assert _split(reply([{}], **{"$clusterTime": seen, "operationTime": 1})) == ([bson.encode({})], bson.encode(seen))


def test_any_other_reply_is_the_drivers() -> None:
    more = {"cursor": {"firstBatch": [], "id": bson.Int64(5), "ns": "a.b"}, "ok": 1.0}
    for other in ({"ok": 0.0, "errmsg": "no", "code": 2}, {"ok": 1.0}, {"cursor": {"ns": "a.b"}, "ok": 1.0}, more, {}):
        assert _split(bson.encode(other)) is None
    whole = reply([{"_id": 1, "text": "abc"}, {"_id": 2}])
    for size in range(len(whole) - 1):  # never for ever, never by an error of its own
        found = _split(whole[:size])
        assert found is None or size >= whole.index(b"\x01ok\x00") + 12
    for position in range(len(whole)):
        for byte in (0, 3, 255):
            _split(whole[:position] + bytes([byte]) + whole[position + 1 :])
