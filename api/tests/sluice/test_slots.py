"""Slots: claimed by who lives, freed by who dies, and never more of them than workers at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sluice.statistics.encoding import decode, encode
from sluice.statistics.figures import added
from sluice.statistics.histogram import Histogram
from sluice.statistics.slots import Slot, read_all
from sluice.statistics.snapshot import (
    CoalescerStats,
    MemberStatus,
    OperationStats,
    PoolConfig,
    PoolSnapshot,
    PoolStats,
    WorkerSnapshot,
)
from sluice.statistics.summary import summarize

API = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from sluice.statistics.slots import Slot
print(Slot.claim(Path(sys.argv[1])).number, flush=True)
sys.stdin.read()
"""


def snapshot(slot: int = 0, *, used: int = 1, opened: int = 5, waits: int = 3) -> WorkerSnapshot:
    stats = PoolStats(
        total_created=opened, idle_connections=2, active_connections=used,
        permits=10, permits_held=used, available_connections=10 - used, eligible=True,
    )  # fmt: skip
    for _ in range(waits):
        stats.wait_time.observe(0.002)
    return WorkerSnapshot(
        worker=slot, pid=os.getpid(), app_name="sluice-here-0", driver="pymongo", started_at=1.0,
        taken_at=time.time(), starts=1, ready=True, loop_lag_seconds=0.0, cpu_seconds=1.0, memory_bytes=1,
        pool_config=PoolConfig(10, 1, 30_000, 5_000),
        pools=[PoolSnapshot(member="a:1", exists=True, stats=stats)],
        operations=[], coalescers=[], members=[],
    )  # fmt: skip


def hold(directory: Path) -> tuple[subprocess.Popen[str], int]:
    """Another process that claims a slot and keeps it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(API)},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_each_worker_has_the_lowest_free_slot(tmp_path: Path) -> None:
    slots = [Slot.claim(tmp_path) for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 1, 2]
    slots[1].close()
    slots.append(Slot.claim(tmp_path))
    assert slots[-1].number == 1
    for slot in slots:
        slot.close()


def test_a_killed_workers_slot_is_free_again_and_nothing_grows(tmp_path: Path) -> None:
    for _ in range(5):
        process, number = hold(tmp_path)
        assert number == 0
        Slot.claim(tmp_path).close()
        end(process)
    with Slot_of(tmp_path) as slot:
        assert slot.number == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.lock", "1.lock", "claim.lock"]


def test_many_processes_that_start_at_once_get_a_slot_each(tmp_path: Path) -> None:
    holders = [hold(tmp_path) for _ in range(6)]
    try:
        assert sorted(number for _, number in holders) == list(range(6))
    finally:
        for process, _ in holders:
            end(process)


def test_a_child_does_not_keep_its_dead_parents_slot(tmp_path: Path) -> None:
    slot = Slot.claim(tmp_path)
    parent_reads, child_writes = os.pipe()
    child_reads, parent_writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(child_writes, b"!")
        os.read(child_reads, 1)
        os._exit(0)
    try:
        os.read(parent_reads, 1)
        slot.close()
        with Slot_of(tmp_path) as again:
            assert again.number == 0
    finally:
        os.write(parent_writes, b"!")
        os.waitpid(child, 0)
        for pipe in (parent_reads, child_writes, child_reads, parent_writes):
            os.close(pipe)


def test_gauges_end_with_their_worker_and_counters_live_on(tmp_path: Path) -> None:
    slot = Slot.claim(tmp_path)
    slot.publish(snapshot())
    [live] = read_all(tmp_path)
    assert live.alive
    assert summarize([live]).pool.active_connections == 1
    slot.close()
    [dead] = read_all(tmp_path)
    assert not dead.alive
    summary = summarize([dead])
    assert (summary.pool.active_connections, summary.pool.total_created, summary.workers) == (0, 5, [])
    assert summary.pool.wait_time.count == 3
    with Slot_of(tmp_path) as again:
        previous = again.previous()
        assert previous is not None
        assert previous.pools[0].stats.total_created == 5


def test_the_sums_are_the_sums_of_their_parts(tmp_path: Path) -> None:
    slots = [Slot.claim(tmp_path) for _ in range(3)]
    for slot in slots:
        slot.publish(snapshot(slot.number, used=slot.number))
    summary = summarize(read_all(tmp_path))
    assert summary.pool.active_connections == 0 + 1 + 2
    assert summary.pool.available_connections == 10 + 9 + 8
    assert summary.pool.current_connections == sum(worker.pool.current_connections for worker in summary.workers)
    assert summary.pool.current_connections == sum(member.pool.current_connections for member in summary.members)
    assert summary.pool.utilization == pytest.approx(3 / 30)
    for slot in slots:
        slot.close()


def test_what_another_version_wrote_is_not_read_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Slot_of(tmp_path) as slot:
        assert slot.previous() is None
        assert caplog.messages == []
        (tmp_path / "0.json").write_text('{"format": "of tomorrow"}')
        assert slot.previous() is None
        assert caplog.messages == [f"{tmp_path}/0.json was written by another version: its counters start from 0"]
        assert read_all(tmp_path) == []


def not_read(folder: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(content)
    with Slot_of(folder) as slot:
        (folder / "0.json").write_bytes(content)
        assert slot.previous() is None
        assert read_all(folder) == []


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"1", b"\xff", b"{}", b"[" * 100_000], ids=len)
def test_what_is_no_snapshot_is_not_read(tmp_path: Path, content: bytes) -> None:
    not_read(tmp_path, content)


@pytest.mark.parametrize(
    "part",
    [
        {"worker": "0"}, {"worker": None}, {"worker": True}, {"ready": 1}, {"app_name": 7}, {"cpu_seconds": "1"},
        {"cpu_seconds": 10**400},
        {"pools": {}}, {"pools": [None]}, {"pools": [{}]}, {"pool_config": []},
        {"members": [{"member": "a:1", "up": 1}]},
    ],
    ids=lambda part: str(part)[:40],
)  # fmt: skip
def test_a_snapshot_with_something_else_in_it_is_not_read(tmp_path: Path, part: dict[str, object]) -> None:
    not_read(tmp_path, json.dumps(json.loads(encode(snapshot())) | part).encode())


@pytest.mark.parametrize(
    "part",
    [
        {"total_created": 1.5}, {"closed": []}, {"closed": {"idle": "1"}}, {"wait_time": []}, {"wait_time": {}},
        {"wait_time": {"counts": [1, 2], "total": 1.0}}, {"wait_time": {"counts": ["1"] * 18, "total": 1.0}},
        {"wait_time": {"counts": [1] * 18}}, {"wait_time": {"counts": [1] * 18, "total": "1"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_pool_with_something_else_in_it_is_not_read(tmp_path: Path, part: dict[str, object]) -> None:
    found = json.loads(encode(snapshot()))
    found["pools"][0]["stats"] |= part
    not_read(tmp_path, json.dumps(found).encode())


def test_a_snapshot_is_read_as_it_was_written() -> None:
    written = snapshot(3, waits=7)
    coalescer = CoalescerStats(kind="read", collection="users")
    coalescer.count(20)
    written.coalescers.append(added(CoalescerStats, [coalescer]))
    written.operations.append(OperationStats("users", "find", errors={"QueueFull": 2}))
    written.members.append(MemberStatus("a:1", up=True, taken_at=1, role="primary", operations={"query": 4}))
    read = decode(encode(written))
    assert read.age_seconds >= written.age_seconds  # that's of now
    read.age_seconds, read.uptime_seconds = written.age_seconds, written.uptime_seconds
    assert (read, read.coalescers[0].saved) == (written, 19)


def test_a_figure_that_is_new_begins_at_its_default() -> None:
    found = json.loads(encode(snapshot()))
    del found["pools"][0]["stats"]["refused_queue_full"], found["pools"][0]["stats"]["use_time"]
    stats = decode(json.dumps(found | {"of_tomorrow": 1}).encode()).pools[0].stats
    assert (stats.refused_queue_full, stats.use_time.count, stats.total_created) == (0, 0, 5)


def test_a_folder_that_is_not_there_has_no_workers(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nothing") == []


def test_a_slot_whose_folder_was_deleted_is_claimed_anew(tmp_path: Path) -> None:
    slots = [Slot.claim(tmp_path / "statistics") for _ in range(2)]
    shutil.rmtree(tmp_path / "statistics")
    assert read_all(tmp_path / "statistics") == []
    for slot in reversed(slots):
        slot.hold()
        slot.publish(snapshot(slot.number))
    assert [slot.number for slot in slots] == [1, 0]
    assert [found.worker for found in read_all(tmp_path / "statistics") if found.alive] == [0, 1]
    for slot in slots:
        slot.close()
        slot.hold()  # given up for good
    assert [found for found in read_all(tmp_path / "statistics") if found.alive] == []


def test_without_a_slot_the_number_is_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    slot = Slot(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        slot.hold()
    assert (slot.number, slot.previous()) == (os.getpid(), None)


def test_quantiles_interpolate_within_a_bucket() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    for _ in range(100):
        histogram.observe(0.0075)
    assert histogram.quantile(0.5) == pytest.approx(0.0075)
    histogram.observe(1000)
    assert histogram.quantile(1) == 30
    assert (Histogram.added([histogram, histogram]).count, histogram.count) == (202, 101)


class Slot_of:  # noqa: N801 used as a function
    """A slot for the length of a block."""

    def __init__(self, directory: Path) -> None:
        self._slot = Slot.claim(directory)

    def __enter__(self) -> Slot:
        return self._slot

    def __exit__(self, *_: object) -> None:
        self._slot.close()


def test_what_a_member_said_outlasts_the_worker_that_asked_but_not_for_long() -> None:
    now = time.time()
    gone, alive = snapshot(0), snapshot(1)
    gone.alive = False
    gone.members = [MemberStatus("a:1", up=True, taken_at=now - 1), MemberStatus("b:1", up=True, taken_at=now - 60)]
    alive.members = [MemberStatus("a:1", up=False, taken_at=now - 5)]
    assert [(status.member, status.up) for status in summarize([gone, alive]).server_view] == [("a:1", True)]
