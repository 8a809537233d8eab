"""Whatever belongs to a transaction, or ends something on the server, gets there through a full queue."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from sluice import DeadlineExceeded, QueueFull, QueueTimeout, Sluice, deadline
from sluice.drivers.pymongo.endings import has_connection, see_through
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import queue, quick, settle, slow, total, with_one_document


async def outcome(value: Any) -> Any:
    """What is a coroutine in one driver only."""
    return await value if inspect.isawaitable(value) else value


def background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that shares no deadline with whoever starts it."""
    return asyncio.create_task(work, context=contextvars.Context())


@asynccontextmanager
async def full_queue(sluice: Sluice, seconds: float = 0.5) -> AsyncIterator[None]:
    """A pool of one, with one operation that waits and no room for a second."""
    busy = [background(slow(sluice, seconds)) for _ in range(2)]
    await until(lambda: queue(sluice).permits_held == 1 and queue(sluice).waiting == 1)
    with pytest.raises(QueueFull):
        await quick(sluice)
    yield
    await settle(busy)


@asynccontextmanager
async def begun_transaction(sluice: Sluice) -> AsyncIterator[Any]:
    """A session of the application's own, with a transaction that has changed a document."""
    client: Any = sluice.database.client
    async with await outcome(client.start_session()) as session:
        await outcome(session.start_transaction())
        await sluice.collection("slow").update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
        yield session


def open_transactions(replica_set: ReplicaSet) -> int:
    with replica_set.direct(replica_set.primary()) as client:
        return int(client.admin.command("serverStatus")["transactions"]["currentOpen"])


def open_cursors(replica_set: ReplicaSet, namespace: str) -> int:
    with replica_set.direct(replica_set.primary()) as client:
        rows = client.admin.aggregate([{"$currentOp": {"idleCursors": True, "allUsers": True}}])
        return sum(1 for row in rows if (row["type"], row["ns"]) == ("idleCursor", namespace))


async def stored(sluice: Sluice) -> int | None:
    document = await sluice.collection("slow").find_one({"_id": 1})
    assert document is not None
    return document.get("n")


@pytest.mark.parametrize(("ending", "value"), [("commit", 1), ("abort", None), ("end_session", None), ("leave", None)])
async def test_a_transaction_of_the_applications_own_ends_though_the_queue_is_full(
    open_sluice: OpenSluice, replica_set: ReplicaSet, ending: str, value: int | None
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)
    async with begun_transaction(sluice) as session, full_queue(sluice):
        match ending:
            case "commit":
                await session.commit_transaction()
            case "abort":
                await session.abort_transaction()
            case "end_session":
                await session.end_session()
    assert open_transactions(replica_set) == 0
    assert await stored(sluice) == value
    assert total(sluice).pool.refused_queue_full == 1


class Dawdler(CommandListener):
    """Holds an update up just before it is sent."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name == "update":
            self.has_begun.set()
            time.sleep(0.1)

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


@pytest.mark.parametrize("times", [1, 5])
async def test_a_transaction_whose_first_operation_is_cancelled_is_not_begun_behind_its_abort(
    open_sluice: OpenSluice, replica_set: ReplicaSet, times: int
) -> None:
    dawdler = Dawdler()
    sluice = await open_sluice(client={"event_listeners": [dawdler]})
    if sluice.options.driver == "pymongo":
        pytest.skip("an operation that is cancelled doesn't go on by itself there")
    await with_one_document(sluice)

    async def work() -> None:
        async with sluice.transaction() as session:
            await sluice.collection("slow").update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await until(dawdler.has_begun.is_set)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await settle([task])
    await until(lambda: queue(sluice).permits_held == 0)
    await until(lambda: open_transactions(replica_set) == 0, 2)
    assert await stored(sluice) is None


async def test_a_whole_transaction_is_let_in_past_a_full_queue(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)
    collection = sluice.collection("slow")

    async def work(session: Any) -> None:
        await collection.update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
        await collection.find({}, session=session).to_list(10)
        await outcome(collection.aggregate([{"$limit": 1}], session=session))

    async with full_queue(sluice):
        client: Any = sluice.database.client
        async with await outcome(client.start_session()) as session:
            await session.with_transaction(work)
    assert open_transactions(replica_set) == 0
    assert await stored(sluice) == 1


async def test_the_queues_timeout_keeps_no_commit_from_being_sent(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_timeout=0.2)
    await with_one_document(sluice)
    async with begun_transaction(sluice) as session:
        busy = asyncio.create_task(slow(sluice, 1))
        await until(lambda: queue(sluice).permits_held == 1)
        with pytest.raises(QueueTimeout) as outside:
            await quick(sluice)
        with pytest.raises(QueueTimeout) as inside:
            await sluice.collection("slow").find_one({"_id": 1}, session=session)
        labelled = [error.value.has_error_label("TransientTransactionError") for error in (outside, inside)]
        assert labelled == [False, True]
        await session.commit_transaction()
        await busy
    assert open_transactions(replica_set) == 0
    assert await stored(sluice) == 1


async def test_a_commit_whose_caller_runs_out_of_time_in_the_queue_leaves_no_transaction_open(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str
) -> None:
    sluice = await open_sluice(max_pool_size=1)
    await with_one_document(sluice)
    with pytest.raises(DeadlineExceeded):
        async with deadline.limit(0.5), sluice.transaction() as session:
            await sluice.collection("slow").update_one({"_id": 1}, {"$set": {"n": 1}}, session=session)
            busy = background(slow(sluice, 1.5))
            await until(lambda: queue(sluice).permits_held == 1)
    assert open_transactions(replica_set) == 0
    # PyMongo takes the transaction for ended, so that it can only be committed; Motor's isn't, and is aborted.
    assert await stored(sluice) == (1 if driver == "pymongo" else None)
    await settle([busy])


async def test_a_commit_that_gets_no_answer_does_not_hold_its_cancelled_caller(
    open_sluice: OpenSluice, replica_set: ReplicaSet, driver: str
) -> None:
    if driver == "motor":
        pytest.skip("a thread that has started can't be cancelled; its caller goes at once")
    sluice = await open_sluice(max_pool_size=2)
    await with_one_document(sluice)
    block = {"failCommands": ["commitTransaction"], "blockConnection": True, "blockTimeMS": 5000}
    async with begun_transaction(sluice) as session:
        with replica_set.direct(replica_set.primary()) as client:
            client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=block)
        commit = asyncio.create_task(session.commit_transaction())
        await until(lambda: queue(sluice).permits_held == 1)
        commit.cancel()
        _, pending = await asyncio.wait({commit}, timeout=2)
        assert not pending
        assert commit.cancelled()


async def test_an_ending_that_fails_after_its_caller_has_gone_is_nobodys_error() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))

    async def failing() -> None:
        has_connection()  # so that one cancellation ends it soon
        try:
            await asyncio.sleep(60)
        finally:
            raise RuntimeError("the connection is gone")

    for times in (1, 2):
        caller = asyncio.create_task(see_through(failing()))
        for _ in range(times):
            await asyncio.sleep(0.01)
            caller.cancel()
        await asyncio.wait({caller})
        assert caller.cancelled()
    await asyncio.sleep(0.01)
    gc.collect()
    assert complaints == []


async def test_closed_cursors_are_closed_on_the_server_though_the_queue_is_full(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)
    collection = sluice.collection("many")
    await collection.insert_many([{"_id": number} for number in range(20)])

    async def opened() -> Any:
        cursor = collection.find(batch_size=2)
        async for _ in cursor:
            break
        return cursor

    cursors = [await opened() for _ in range(5)]
    namespace = f"{sluice.database.name}.many"
    assert open_cursors(replica_set, namespace) == 5
    async with full_queue(sluice):
        await asyncio.gather(*(cursor.close() for cursor in cursors))
    assert open_cursors(replica_set, namespace) == 0


async def test_forgotten_cursors_are_closed_on_the_server_though_the_queue_is_full(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)
    collection = sluice.collection("many")
    await collection.insert_many([{"_id": number} for number in range(20)])
    namespace = f"{sluice.database.name}.many"
    async for _ in collection.find(batch_size=2):
        break
    assert open_cursors(replica_set, namespace) == 1
    async with full_queue(sluice, 1.5):  # the driver looks for them every second
        gc.collect()
    await until(lambda: open_cursors(replica_set, namespace) == 0, 5)


async def test_a_change_stream_is_closed_though_the_queue_is_full(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)
    stream: Any = await outcome(sluice.collection("slow").watch(max_await_time_ms=50))
    await stream.try_next()
    namespace = f"{sluice.database.name}.slow"
    assert open_cursors(replica_set, namespace) == 1
    async with full_queue(sluice):
        await stream.close()
    assert open_cursors(replica_set, namespace) == 0


async def test_closing_ends_the_sessions_on_the_server_though_the_queue_is_full(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=1, wait_queue_multiple=1)
    await with_one_document(sluice)

    def ended() -> int:
        with replica_set.direct(replica_set.primary()) as client:
            return int(client.admin.command("serverStatus")["metrics"]["commands"]["endSessions"]["total"])

    before = ended()
    async with full_queue(sluice, 0.3):
        await sluice.close()
    assert ended() > before
