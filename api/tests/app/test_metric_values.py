"""Metrics as an application defines them, in one process after the other: each forked child here is a worker."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from app.observe import metric_files, metric_values
from app.observe.metric_files import AllSlots


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if nothing had been defined before."""
    monkeypatch.setattr(metric_values, "_slot", metric_values._Slot())
    yield
    metric_values.leave()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def exported(directory: Path, *unowned: int) -> dict[str, float]:
    """What `/metrics` would say, by name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for metric in AllSlots(directory, unowned).collect()
        for sample in metric.samples
    }


def in_a_child(work: Callable[[], None]) -> None:
    """Do it in a forked process, and wait for that to end, as if killed: nothing is given up."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_what_is_counted_before_there_is_a_slot_is_exported_with_it(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    created.inc(2)
    assert exported(tmp_path) == {}
    metric_values.keep(tmp_path, 0)
    created.inc()
    assert exported(tmp_path)["orders_created_total"] == 3
    assert metric_values.complete()


def test_every_kind_of_metric_is_summed_over_slots(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    by_country = Counter("orders_by_country", "Orders.", ("country",), registry=registry)
    seconds = Histogram("order_seconds", "Time.", buckets=(1, 10), registry=registry)
    size = Summary("order_bytes", "Size.", registry=registry)
    basket = Gauge("baskets", "Open ones.", registry=registry, multiprocess_mode="sum")
    limit = Gauge("basket_limit", "Each worker's.", registry=registry)

    def work(slot: int) -> None:
        metric_values.keep(tmp_path, slot)
        created.inc()
        by_country.labels("de").inc(2)
        seconds.observe(5)
        size.observe(100)
        basket.set(3)
        limit.set(slot + 7)

    for slot in (0, 1):
        in_a_child(lambda: work(slot))  # noqa: B023
    assert exported(tmp_path) == {
        "orders_created_total": 2,
        "orders_by_country_total[('country', 'de')]": 4,
        "order_seconds_bucket[('le', '1.0')]": 0,
        "order_seconds_bucket[('le', '10.0')]": 2,
        "order_seconds_bucket[('le', '+Inf')]": 2,
        "order_seconds_count": 2,
        "order_seconds_sum": 10,
        "order_bytes_count": 2,
        "order_bytes_sum": 200,
        "baskets": 6,
        "basket_limit[('pid', '0')]": 7,
        "basket_limit[('pid', '1')]": 8,
    }


def test_what_was_counted_before_a_fork_is_counted_once(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    limit = Gauge("basket_limit", "Each worker's.", registry=registry)
    created.inc(5)
    limit.set(7)
    for slot in (0, 1, 0):  # the third takes the first one's slot
        in_a_child(lambda: metric_values.keep(tmp_path, slot))  # noqa: B023
    assert exported(tmp_path) == {
        "orders_created_total": 5,
        "basket_limit[('pid', '0')]": 7,
        "basket_limit[('pid', '1')]": 7,
    }


def test_a_child_of_a_worker_writes_into_no_file_of_it(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    metric_values.keep(tmp_path, 0)
    created.inc()
    in_a_child(lambda: created.inc(100))
    created.inc()
    assert exported(tmp_path)["orders_created_total"] == 2


def test_a_slots_next_owner_goes_on_with_counters_and_begins_gauges_anew(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    busy = Gauge("orders_in_progress", "Orders.", ("kind",), registry=registry, multiprocess_mode="livesum")

    def work() -> None:
        metric_values.keep(tmp_path, 0)
        created.inc(3)
        busy.labels("killed").inc()

    in_a_child(work)
    assert exported(tmp_path)["orders_in_progress[('kind', 'killed')]"] == 1
    metric_values.keep(tmp_path, 0)
    created.inc()
    assert exported(tmp_path) == {"orders_created_total": 4}


def test_the_gauges_of_the_living_leave_out_a_slot_that_nobody_has(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    busy = Gauge("orders_in_progress", "Orders.", registry=registry, multiprocess_mode="livesum")
    most = Gauge("largest_order", "Orders.", registry=registry, multiprocess_mode="max")
    metric_values.keep(tmp_path, 10)
    created.inc()
    busy.inc()
    most.set(9)
    assert exported(tmp_path, 0, 1) == {"orders_created_total": 1, "orders_in_progress": 1, "largest_order": 9}
    assert exported(tmp_path, 10) == {"orders_created_total": 1, "largest_order": 9}


def test_a_slot_that_is_changed_is_left_as_it_was(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    limit = Gauge("basket_limit", "Each worker's.", registry=registry, multiprocess_mode="liveall")
    limit.set(7)
    for slot in (0, 1):
        metric_values.keep(tmp_path, slot)
        created.inc()
    assert exported(tmp_path, 0) == {"orders_created_total": 2, "basket_limit[('pid', '1')]": 7}


def test_files_that_somebody_has_deleted_are_made_anew(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", registry=registry)
    limit = Gauge("basket_limit", "Each worker's.", registry=registry)
    limit.set(7)
    metric_values.keep(tmp_path, 0)
    created.inc(3)
    for path in tmp_path.iterdir():
        path.unlink()
    metric_values.keep(tmp_path, 0)
    created.inc()
    assert exported(tmp_path) == {"orders_created_total": 1, "basket_limit[('pid', '0')]": 7}


def test_what_finds_no_room_waits_for_some(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    created = Counter("orders_created", "Orders.", registry=registry)
    metric_values.keep(tmp_path, 0)
    created.inc()
    with monkeypatch.context() as patched:
        patched.setattr(metric_files, "_provide", no_room)
        busy = Gauge("orders_in_progress", "Orders.", registry=registry)
        busy.inc(2)
        created.inc()  # whose page is there
        for _ in range(2):
            metric_values.keep(tmp_path, 0)
        assert not metric_values.complete()
        assert exported(tmp_path) == {"orders_created_total": 2}
    metric_values.keep(tmp_path, 0)
    assert metric_values.complete()
    assert exported(tmp_path) == {"orders_created_total": 2, "orders_in_progress[('pid', '0')]": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "metrics aren't written, or not all of them: [Errno 28] No space left on device",
        "metrics are written again",
    ]


def test_a_label_that_is_removed_and_comes_back_counts_on(tmp_path: Path, registry: CollectorRegistry) -> None:
    created = Counter("orders_created", "Orders.", ("country",), registry=registry)
    metric_values.keep(tmp_path, 0)
    created.labels("de").inc()
    created.remove("de")
    created.labels("de").inc()
    assert exported(tmp_path) == {"orders_created_total[('country', 'de')]": 2}
