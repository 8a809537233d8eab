"""A batch that is sent again, since the server gave it up, may be there in part: nobody is told otherwise."""

from __future__ import annotations

import asyncio

from pymongo import MongoClient
from pymongo.errors import ExecutionTimeout, PyMongoError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from sluice import Limits, Sluice, deadline
from sluice.errors import NOTHING_WRITTEN
from sluice.pool.turnstile import Turnstile
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, held, settle

ONE_AT_A_TIME = Limits(lanes=1, patience=60)


class Inserts(CommandListener):
    """How many commands were sent that insert."""

    def __init__(self) -> None:
        self.number = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.number += event.command_name == "insert"

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing is counted then."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nor then."""


async def insert(sluice: Sluice, key: int, seconds: float) -> None:
    async with deadline.limit(seconds):
        await sluice.writer("docs", limits=ONE_AT_A_TIME).insert({"key": key})


def turnstile_of(sluice: Sluice, replica_set: ReplicaSet) -> Turnstile:
    connected = sluice._client()
    pool = connected.pools[replica_set.primary()]
    return connected.gate or pool.turnstile  # type: ignore[attr-defined]


async def test_what_is_refused_the_second_time_may_be_there_by_the_first(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    inserts = Inserts()
    sluice = await open_sluice(client={"event_listeners": [inserts]})
    await sluice.collection("docs").create_index("key", unique=True)
    before = inserts.number
    turnstile = turnstile_of(sluice, replica_set)
    other: MongoClient[dict[str, object]] = MongoClient(replica_set.url)
    with other, other.start_session() as session:
        session.start_transaction()
        other[sluice.database.name]["docs"].insert_one({"key": 30}, session=session)
        tasks = [asyncio.create_task(insert(sluice, key, 20)) for key in range(60)]
        await until(lambda: inserts.number == before + 2 and held(sluice) == 1)  # the batch, after the first document
        turnstile.queue_limit = turnstile.admitting = 0  # so that its halves are refused
        outcomes = await settle(tasks)
        session.abort_transaction()
    turnstile.queue_limit = turnstile.admitting = turnstile.permits
    there = set(await sluice.collection("docs").distinct("key"))
    assert there, "the server has put in none before it gave up"
    for key, outcome in enumerate(outcomes):
        if isinstance(outcome, PyMongoError):
            assert not (outcome.has_error_label(NOTHING_WRITTEN) and key in there)
        else:
            assert key in there
    assert any(isinstance(outcome, ExecutionTimeout) for outcome in outcomes)


async def test_a_slow_server_is_not_sent_halves_of_halves_of_halves(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    inserts = Inserts()
    sluice = await open_sluice(client={"event_listeners": [inserts]})
    await sluice.collection("docs").insert_one({"key": -1})
    writer = sluice.writer("docs", limits=ONE_AT_A_TIME)
    lane = writer._coalescer.take_lane()
    assert lane is not None
    tasks = [asyncio.create_task(insert(sluice, key, 30)) for key in range(64)]
    await until(lambda: writer._coalescer.waiting == 64)
    before = inserts.number
    fail(replica_set, replica_set.primary(), ["insert"], times=100_000, blockConnection=True, blockTimeMS=1_200)
    try:
        writer._coalescer.leave_lane(lane)
        assert await settle(tasks) == [None] * 64
    finally:
        fail(replica_set, replica_set.primary(), ["insert"], times=0)
    assert inserts.number - before <= 1 + 2 * 8 + 9
    assert await sluice.collection("docs").count_documents({}) == 65


async def test_a_batch_whose_time_is_up_is_not_halved(open_sluice: OpenSluice) -> None:
    """That it isn't sent then has the code of a server that gave up."""
    count = 200
    sluice = await open_sluice()
    writer = sluice.writer("docs", limits=ONE_AT_A_TIME)
    await writer.insert({"key": -1})
    asked = 0
    insert_many = writer._collection.insert_many

    class Counting:
        """The collection, that counts; all that it does is real."""

        async def insert_many(self, *arguments: object, **options: object) -> object:
            nonlocal asked
            asked += 1
            while (deadline.remaining() or 0) > 0.1:  # as if it had waited for a permit, or for a primary
                await asyncio.sleep(0.01)
            return await insert_many(*arguments, **options)  # type: ignore[arg-type]

    lane = writer._coalescer.take_lane()
    assert lane is not None
    tasks = [asyncio.create_task(insert(sluice, key, 2)) for key in range(count)]
    await until(lambda: writer._coalescer.waiting == count)
    writer._collection = Counting()  # type: ignore[assignment]
    writer._coalescer.leave_lane(lane)
    outcomes = await settle(tasks)
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    assert asked == 1
    assert await sluice.collection("docs").count_documents({}) == 1
