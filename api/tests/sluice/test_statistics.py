"""The numbers are the truth: they agree with the members' own, and end exact whatever happened."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import datetime

import pytest

from sluice.drivers.members import name_of
from sluice.pool.budget import MONITORS, Demand
from sluice.statistics.members import Answer, lags
from sluice.statistics.metrics import SluiceCollector
from sluice.statistics.slots import Slot, read_all
from sluice.statistics.snapshot import metric_names
from sluice.statistics.summary import summarize
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.support import connections_of, held, quick, settle, slow, total, with_one_document


async def test_at_rest_open_connections_and_monitors_are_what_each_member_reports(
    open_sluice: OpenSluice, replica_set: ReplicaSet
) -> None:
    sluice = await open_sluice(max_pool_size=20, min_pool_size=3)
    await with_one_document(sluice)
    await asyncio.gather(*(slow(sluice, 0.1) for _ in range(12)))

    def counted() -> dict[str, int]:
        return {row.member: row.pool.current_connections for row in total(sluice).members if row.member != "*"}

    await until(lambda: len(counted()) == 3 and min(counted().values()) >= 3)

    def expected() -> dict[str, int]:
        return {member: number + MONITORS for member, number in counted().items()}

    with suppress(TimeoutError):
        await until(lambda: connections_of(replica_set, sluice.app_name) == expected())
    assert connections_of(replica_set, sluice.app_name) == expected()


def test_members_are_named_as_people_write_them() -> None:
    addresses: list[tuple[str, int | None]] = [("db1", 27017), ("::1", 27017), ("/tmp/mongodb-27017.sock", None)]  # noqa: S108
    assert [name_of(address) for address in addresses] == ["db1:27017", "[::1]:27017", "/tmp/mongodb-27017.sock"]  # noqa: S108


async def test_connections_are_counted_as_used_only_while_they_are(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=10)
    await with_one_document(sluice)
    tasks = [asyncio.create_task(slow(sluice, 0.5)) for _ in range(4)]
    await until(lambda: total(sluice).pool.active_connections == 4)
    pool = total(sluice).pool
    assert pool.available_connections == 6
    assert pool.current_connections == pool.idle_connections + 4
    await settle(tasks)
    await until(lambda: held(sluice) == 0)
    pool = total(sluice).pool
    assert (pool.active_connections, pool.available_connections) == (0, 10)
    assert pool.use_time.count == pool.wait_time.count


async def test_cold_callers_wait_and_use_nothing_until_a_connection_is_open(
    open_sluice: OpenSluice, driver: str
) -> None:
    sluice = await open_sluice(max_pool_size=50)
    await with_one_document(sluice)
    seen: list[tuple[int, int, int]] = []

    async def watch() -> None:
        while True:
            pool = total(sluice).pool
            seen.append((pool.active_connections, pool.current_connections, pool.waiting))
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(quick(sluice) for _ in range(50)))
    watcher.cancel()
    await settle([watcher])
    assert all(used <= open_ for used, open_, _ in seen)
    if driver == "pymongo":  # Motor's threads are let run one by one beside a loop that watches them all the time
        assert max(waiting for _, _, waiting in seen) > 20


async def test_counts_end_exact_after_random_cancellations(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=5, wait_queue_multiple=100)
    await with_one_document(sluice)
    dice = random.Random(7)

    async def sometimes_cancelled() -> None:
        task = asyncio.create_task(quick(sluice))
        if dice.random() < 0.5:
            await asyncio.sleep(dice.random() * 0.02)
            task.cancel()
        await settle([task])

    for _ in range(5):
        await asyncio.gather(*(sometimes_cancelled() for _ in range(100)))
    await until(lambda: held(sluice) == 0)
    pool = total(sluice).pool
    assert (pool.active_connections, pool.waiting, pool.connecting) == (0, 0, 0)
    assert pool.total_created - sum(pool.closed.values()) == pool.current_connections
    assert pool.use_time.count == pool.wait_time.count


async def test_counts_end_exact_wherever_a_caller_is_cancelled(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(max_pool_size=1, max_idle_time=0.001)  # each caller closes a connection and opens one
    await with_one_document(sluice)
    for steps in range(25):
        await quick(sluice)
        await asyncio.sleep(0.002)  # until the connection has been idle for too long
        task = asyncio.create_task(quick(sluice))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await settle([task])
        await until(lambda: held(sluice) == 0)
        pool = total(sluice).pool
        assert pool.total_created - sum(pool.closed.values()) == pool.current_connections
    assert pool.closed["idle"] >= 25


async def test_the_next_owner_of_a_slot_continues_its_counters(open_sluice: OpenSluice, driver: str) -> None:
    first = await open_sluice(max_pool_size=3)
    await with_one_document(first)
    await quick(first)
    with first.operation("slow", "find_one"):
        await quick(first)
    before = total(first)
    await first.close()
    second = await open_sluice(max_pool_size=3)
    await quick(second)
    snapshot = second.snapshot()
    after = summarize([snapshot])
    assert (second.slot.number, snapshot.starts) == (first.slot.number, 2)
    assert after.pool.total_created > before.pool.total_created
    assert after.pool.wait_time.count > before.pool.wait_time.count
    assert after.pool.current_connections == after.pool.total_created - sum(after.pool.closed.values())
    [stats] = snapshot.operations
    assert (stats.collection, stats.operation, stats.duration.count) == ("slow", "find_one", 1)


async def test_workers_publish_for_each_other_within_seconds(open_sluice: OpenSluice) -> None:
    one, two = await open_sluice(), await open_sluice()
    await with_one_document(one)
    await asyncio.gather(quick(one), quick(two))
    directory = one.slot.directory

    def both() -> bool:
        summary = summarize(read_all(directory))
        return len(summary.workers) == 2 and all(worker.pool.wait_time.count >= 1 for worker in summary.workers)

    await until(both, 5)


async def test_one_worker_asks_the_members_and_another_takes_over(open_sluice: OpenSluice) -> None:
    one, two = await open_sluice(), await open_sluice()
    await until(lambda: len(one.snapshot().members) == 3, 15)
    assert two.snapshot().members == []
    members = {status.member: status for status in one.snapshot().members}
    assert sorted(status.role or "" for status in members.values()) == ["primary", "secondary", "secondary"]
    assert all(status.up and status.connections_current and status.lag is not None for status in members.values())
    assert all(0 < (status.disk_used_bytes or 0) < (status.disk_size_bytes or 0) for status in members.values())
    await one.close()
    await until(lambda: len(two.snapshot().members) == 3, 15)


async def test_the_members_own_view_shows_a_dead_member(open_sluice: OpenSluice, replica_set: ReplicaSet) -> None:
    sluice = await open_sluice()
    await until(lambda: len(sluice.snapshot().members) == 3, 15)
    secondary = next(address for address in replica_set.addresses if address != replica_set.primary())
    replica_set.kill(secondary)
    await until(lambda: [s.member for s in sluice.snapshot().members if not s.up] == [secondary], 20)
    # How far behind it is, nobody knows; the primary, which doesn't reach it either, says 1970.
    await until(lambda: [s.member for s in sluice.snapshot().members if s.lag is None] == [secondary], 20)


def test_only_members_that_the_primary_reaches_and_that_copy_have_a_lag() -> None:
    def row(name: str, state: str, second: int | None, health: int = 1, **more: object) -> dict[str, object]:
        written = datetime(1970, 1, 1) if second is None else datetime(2026, 11, 26, 12, 0, second)  # noqa: DTZ001
        return {"name": name, "stateStr": state, "health": health, "optimeDate": written, **more}

    rows = [
        row("a:1", "PRIMARY", 30, self=True),
        row("b:1", "SECONDARY", 28),
        row("c:1", "SECONDARY", 31),  # its news is newer than the primary's
        row("d:1", "(not reachable/healthy)", None, 0),
        row("e:1", "SECONDARY", 20, 0),  # just lost
        row("f:1", "STARTUP2", None),
        {"name": "g:1", "stateStr": "ARBITER", "health": 1},
    ]
    assert lags([None, Answer({}, {"members": rows}, {})]) == {"a:1": 0.0, "b:1": 2.0, "c:1": 0.0}
    assert lags([Answer({}, {"members": rows[1:]}, {}), Answer({}, {}, {})]) == {}


async def test_a_member_that_accepts_too_few_connections_is_warned_about_once(
    open_sluice: OpenSluice, caplog: pytest.LogCaptureFixture
) -> None:
    sluice = await open_sluice(planned_connections=1_000_000)
    await until(lambda: "1000000 connections may be opened to" in caplog.text, 15)
    seen = sluice.snapshot().members[0].taken_at
    await until(lambda: sluice.snapshot().members[0].taken_at > seen, 15)
    assert caplog.text.count("1000000 connections may be opened to") == 3


async def test_every_metric_is_exported_under_its_name(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    with sluice.operation("slow", "find_one"):
        await sluice.reader("slow").get(1)
    await until(lambda: len(sluice.snapshot().members) == 3, 15)
    sluice.slot.publish(sluice.snapshot())
    collector = SluiceCollector(sluice.slot.directory, "main", demand=Demand(1, 1, 1), budget=100)
    families = list(collector.collect())
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert exported == metric_names()


async def test_a_folder_without_room_costs_no_request(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    number = Slot.claim(sluice.slot.directory)
    number.close()
    (sluice.slot.directory / f"{sluice.slot.number}.draft").mkdir()  # publishing fails from here on
    await until(lambda: read_all(sluice.slot.directory)[0].taken_at < sluice.snapshot().taken_at - 1.5)
    assert await quick(sluice) == {"_id": 1}
    (sluice.slot.directory / f"{sluice.slot.number}.draft").rmdir()
