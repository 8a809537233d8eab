"""MongoDB comes and goes; the worker stays, says so, and is ready again by itself."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from pymongo import WriteConcern
from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
from pymongo.read_preferences import PrimaryPreferred

from sluice import NotPrepared, Options, PoolUnavailable, Slot, Sluice
from stack.free_ports import free_ports
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import fail, held, quick, settle, total, with_one_document


async def test_a_worker_starts_while_mongodb_is_away_and_becomes_ready_when_it_comes(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    for address in replica_set.addresses:
        replica_set.kill(address)
    sluice = await open_sluice(wait=False, server_selection_timeout=0.5)
    assert not sluice.ready
    with pytest.raises(PyMongoError):
        await sluice.collection("slow").find_one({})
    await asyncio.to_thread(replica_set.revive)
    await until(lambda: sluice.ready, 10)
    await with_one_document(sluice)
    assert await quick(sluice) == {"_id": 1}


async def test_it_is_ready_within_two_seconds_of_an_election_without_any_traffic(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(heartbeat_frequency=10, server_selection_timeout=5)
    for address in replica_set.addresses:
        replica_set.kill(address)
    await until(lambda: not sluice.ready)
    for address in replica_set.addresses:
        replica_set.start_member(address)
    await asyncio.to_thread(replica_set.primary)
    elected = time.monotonic()
    await until(lambda: sluice.ready, 10)
    assert time.monotonic() - elected < 2


async def test_a_killed_primary_leaves_every_count_right(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(max_pool_size=8, wait_queue_multiple=50)
    await with_one_document(sluice)
    end = time.monotonic() + 6
    outcomes: list[object] = []

    async def work() -> None:
        while time.monotonic() < end:
            try:
                outcomes.append(await quick(sluice))
            except PyMongoError as error:
                outcomes.append(error)
                await asyncio.sleep(0.05)

    workers = [asyncio.create_task(work()) for _ in range(40)]
    await until(lambda: len(outcomes) > 200)
    replica_set.kill(replica_set.primary())
    await settle(workers)
    assert outcomes[-1] == {"_id": 1}
    await until(lambda: held(sluice) == 0)
    pool = total(sluice).pool
    assert (pool.active_connections, pool.waiting) == (0, 0)
    assert pool.total_created - sum(pool.closed.values()) == pool.current_connections


async def test_a_full_paused_primary_is_not_hidden_by_idle_secondaries(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=5, min_pool_size=2)
    await until(lambda: total(sluice).pool.available_connections == 5)
    for address in replica_set.addresses:
        if address != replica_set.primary():
            replica_set.kill(address)  # the primary steps down without a majority
    await until(lambda: not sluice.ready)
    assert total(sluice).pool.available_connections == 0


async def test_the_database_is_prepared_once_and_again_until_it_works(options: Options, tmp_path: Any) -> None:
    calls: list[str] = []

    async def prepare(database: Any) -> None:
        calls.append(database.name)
        if len(calls) < 3:
            raise PyMongoError("not yet")

    sluice = Sluice(options, Slot.claim(tmp_path), prepare=prepare)
    await sluice.open()
    await until(lambda: sluice.ready)
    assert calls == [options.database] * 3
    await sluice.close()


async def test_nothing_is_written_once_the_database_is_found_to_be_prepared_no_more(
    options: Options, tmp_path: Any
) -> None:
    outcomes: list[Exception | str | None] = ["no schema", NotPrepared("no index"), None]

    async def prepare(database: Any) -> str | None:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    sluice = Sluice(options, Slot.claim(tmp_path), prepare=prepare)
    await sluice.open()
    await until(lambda: sluice.reason == "no schema" and sluice.ready)
    await until(lambda: sluice.reason == "no index" and not sluice.ready)
    with pytest.raises(NotPrepared, match="no index"):
        sluice.operation("x", "insert_one")
    await until(lambda: sluice.ready)
    with sluice.operation("x", "insert_one"):
        pass
    await sluice.close()


async def test_nothing_is_written_before_the_database_is_prepared(
    options: Options, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Exception | str | None] = [NotPrepared("no index")] * 2 + ["no schema", None]
    seen: list[str | None] = []

    async def prepare(database: Any) -> str | None:
        seen.append(sluice.reason)
        outcome = outcomes[len(seen) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    caplog.set_level(logging.WARNING, "sluice")
    sluice = Sluice(options, Slot.claim(tmp_path), prepare=prepare)
    await sluice.open()
    await until(lambda: sluice.reason == "no index")
    with pytest.raises(NotPrepared, match="no index"):
        sluice.operation("x", "insert_one")
    with sluice.operation("x", "find_one"):
        pass
    await until(lambda: sluice.ready)
    assert sluice.reason == "no schema"
    with sluice.operation("x", "insert_one"):
        pass
    await until(lambda: sluice.reason is None)
    assert seen == ["MongoDB has not been reached yet", "no index", "no index", "no schema"]
    assert caplog.messages == ["connection pool not ready: no index", "the database isn't quite prepared: no schema"]
    await sluice.close()


async def test_a_name_that_dns_does_not_know_stops_nobody(
    driver: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options = Options(
        url="mongodb+srv://cluster.invalid/",
        database="x",
        driver=driver,  # type: ignore[arg-type]
        connect_timeout=1.0,
    )
    sluice = Sluice(options, Slot.claim(tmp_path))
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        await sluice.open()
        assert time.monotonic() - started < 0.5
        await until(lambda: "connection pool not ready" in caplog.text)
    assert not sluice.ready
    with pytest.raises(PoolUnavailable):
        sluice.collection("x")
    await sluice.close()


async def test_nothing_listens_there(driver: str, tmp_path: Any) -> None:
    [port] = free_ports(1)
    options = Options(
        url=f"mongodb://127.0.0.1:{port}",
        database="x",
        driver=driver,  # type: ignore[arg-type]
        server_selection_timeout=0.5,
    )
    sluice = Sluice(options, Slot.claim(tmp_path))
    await sluice.open()
    with pytest.raises((PoolUnavailable, PyMongoError)):
        await sluice.collection("x").find_one({})
    await sluice.close()
    with pytest.raises(PoolUnavailable, match="not connected yet, or closed"):
        sluice.collection("x")


async def test_a_pool_that_is_cleared_while_it_is_filled_is_no_error(
    open_sluice: OpenSluice, replica_set: ReplicaSet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sluice = await open_sluice(min_pool_size=1)
    primary = replica_set.primary()
    assert sluice._connected is not None
    pool: Any = sluice._connected.pools[primary]

    async def clear(**how: bool) -> None:
        """As the driver does when a member is silent."""
        done = pool._reset(close=False, **how)
        if done is not None:
            await done

    await until(lambda: len(pool.conns) >= 1)  # or one that it was filled with, and one that an operation opened
    slow = {"failCommands": ["hello", "isMaster", "ismaster"], "blockConnection": True, "blockTimeMS": 2000}
    with replica_set.direct(primary) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=slow)
        await clear(pause=False)
        await until(lambda: pool._pending == 1)  # the driver fills it up
        await clear(interrupt_connections=True)
        await until(lambda: f"connection pool cleared while it was filled: {primary}" in caplog.messages)
        client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_what_waits_for_a_frozen_primary_goes_on_with_the_next_one(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(socket_timeout=90, server_selection_timeout=20)
    await with_one_document(sluice)
    primary = await asyncio.to_thread(replica_set.primary)
    replica_set.freeze(primary)
    try:
        async with asyncio.timeout(60):  # the socket would wait for longer
            inserted = [sluice.collection("slow").insert_one({"number": number}) for number in range(5)]
            await asyncio.gather(*inserted, *(quick(sluice) for _ in range(5)))
    finally:
        replica_set.thaw(primary)
    assert await sluice.collection("slow").count_documents({"number": {"$gte": 0}}) == 5
    await until(lambda: held(sluice) == 0)


async def test_a_reader_may_go_on_while_there_is_no_primary(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice(server_selection_timeout=2)
    everywhere = sluice.database.get_collection("slow", write_concern=WriteConcern(w=3))
    await everywhere.insert_one({"_id": 1})
    primary = await asyncio.to_thread(replica_set.primary)
    for address in (address for address in replica_set.addresses if address != primary):
        replica_set.kill(address)
    await until(lambda: "RSPrimary" not in sluice.roles().values())
    reader = sluice.reader("slow", read_preference=PrimaryPreferred())
    assert reader is sluice.reader("slow", read_preference=PrimaryPreferred())
    assert reader is not sluice.reader("slow")
    assert [await reader.get(1) for _ in range(3)] == [{"_id": 1}] * 3
    assert await asyncio.gather(*(reader.get(1) for _ in range(20))) == [{"_id": 1}] * 20
    with pytest.raises(ServerSelectionTimeoutError):
        await sluice.reader("slow").get(1)


async def test_a_connection_that_is_given_up_at_the_end_is_no_failure_of_its_member(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=500, min_pool_size=500)  # more than is opened before it's closed
    slow = {"blockConnection": True, "blockTimeMS": 2000, "appName": sluice.app_name}
    for address in replica_set.addresses:
        await asyncio.to_thread(fail, replica_set, address, ["hello", "isMaster"], 100, **slow)
    opened = total(sluice).pool.total_created
    await until(lambda: total(sluice).pool.connecting > 0)
    await sluice.close()
    assert total(sluice).pool.total_created < opened + 50
    assert total(sluice).pool.failed_to_open == 0


async def test_the_heart_beats_on_whatever_fails(
    open_sluice: OpenSluice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sluice = await open_sluice()

    def fail_once(connected: object) -> list[Any]:
        monkeypatch.undo()
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(sluice._failover, "deposed", fail_once)
    with caplog.at_level(logging.ERROR):
        await until(lambda: "dictionary changed size" in caplog.text)
    assert sluice._heart is not None
    assert not sluice._heart.done()


async def test_a_member_may_be_found_while_the_loop_looks_through_them(open_sluice: OpenSluice) -> None:
    """By the thread of one of Motor's monitors."""
    sluice = await open_sluice()
    connected: Any = sluice._client()
    some = next(iter(connected.pools.values()))
    number = len(connected.pools)
    for _ in connected.pools.values():
        for _ in sluice._statistics._pools.values():
            connected._make_pool(("new.example", 27_017 + len(connected.pools)), some.opts)
    assert len(connected.pools) > number
