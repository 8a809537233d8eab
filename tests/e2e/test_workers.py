"""Workers and their master: killed, reloaded, replaced; nobody who reads notices."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable

import httpx
import psutil
import pytest
from load import Callers
from prometheus_client.parser import text_string_to_metric_families
from test_load import assert_sums
from whole_stack import Stack, Wrk, kill, until

Get = Callable[[httpx.Client], httpx.Response]


@pytest.fixture
def get_user(user_ids: list[str]) -> Get:
    return lambda client: client.get(f"/users/{random.choice(user_ids)}")


def counters(stack: Stack) -> dict[str, float]:
    """Each counter's sum over all its labels, as Prometheus would read it."""
    families = text_string_to_metric_families(httpx.get(f"{stack.api_url}/metrics").text)
    return {
        family.name: sum(sample.value for sample in family.samples if sample.name.endswith("_total"))
        for family in families
        if family.type == "counter" and not family.name.startswith("mongodb_member_")
    }


def files(stack: Stack) -> set[str]:
    """What the workers keep on shared memory; a draft is replaced at once."""
    paths = (path for path in stack.statistics.rglob("*") if path.is_file() and path.suffix != ".draft")
    return {str(path.relative_to(stack.statistics)) for path in paths}


def test_a_killed_worker_comes_back_and_statistics_go_on(stack: Stack, driver: str, get_user: Get) -> None:
    workers = stack.wait_for_workers()
    with Callers(stack, get_user):
        pass  # so that every kind of file is there
    kept, first = files(stack), counters(stack)
    last = first
    for _ in range(5):
        killed = random.choice(list(workers.values()))
        kill(killed)
        workers = stack.wait_for_workers(without={killed})
        assert_sums(stack.stats())
        now = counters(stack)
        assert {name: (last[name], now[name]) for name in last if now[name] < last[name]} == {}
        last = now
    assert last["sluice_worker_starts"] == first["sluice_worker_starts"] + 5
    assert last["http_requests"] >= first["http_requests"]
    assert last["db_client_connection_created"] > first["db_client_connection_created"]
    assert stack.stats()["total_created"] >= last["db_client_connection_created"]
    assert files(stack) == kept


def test_readers_do_not_notice_killed_workers(stack: Stack, get_user: Get) -> None:
    workers = stack.wait_for_workers()
    with Callers(stack, get_user) as readers:
        for _ in range(3):
            killed = random.choice(list(workers.values()))
            kill(killed)
            workers = stack.wait_for_workers(without={killed})
            readers.wait_for(200)
    assert set(readers.outcomes) == {200}


def test_readers_do_not_notice_a_graceful_reload(stack: Stack, get_user: Get) -> None:
    old = set(stack.wait_for_workers().values())
    with Callers(stack, get_user) as readers:
        os.kill(stack.pid("api"), signal.SIGHUP)
        stack.wait_for_workers(without=old)
        readers.wait_for(200)
    assert set(readers.outcomes) == {200}
    until(lambda: not any(map(psutil.pid_exists, old)))
    assert_sums(stack.stats())


def test_readers_do_not_notice_recycled_workers(stack: Stack, user_ids: list[str]) -> None:
    driver = stack.stats()["driver"]
    stack.up("--driver", driver, MAX_REQUESTS="1000", MAX_REQUESTS_JITTER="100")
    stack.wait_for_workers()
    before = counters(stack)
    with Wrk(stack, user_ids, seconds=6) as wrk:
        load = wrk.result()
    assert load.non_2xx == 0
    assert load.socket_errors == 0
    until(lambda: counters(stack)["sluice_worker_starts"] > before["sluice_worker_starts"] + 2)
    assert counters(stack)["http_requests"] >= before["http_requests"] + load.requests
    stack.up("--driver", driver)
    stack.wait_for_workers()


def test_a_killed_master_is_replaced_and_its_workers_end(stack: Stack, get_user: Get) -> None:
    # The next ones come beside the old ones: two pairs of slots take turns. All have their files from here on.
    master, before_old = stack.pid("api"), set(stack.wait_for_workers().values())
    with Callers(stack, get_user):
        pass
    os.kill(master, signal.SIGHUP)
    old = set(stack.wait_for_workers(without=before_old).values())
    until(lambda: not any(map(psutil.pid_exists, before_old)), 40)
    with Callers(stack, get_user):
        pass
    kept, before = files(stack), counters(stack)
    kill(master)
    until(lambda: not any(map(psutil.pid_exists, old)), 40)
    new = stack.wait_for_workers(without=old)
    assert stack.pid("api") not in (0, master)
    assert {psutil.Process(pid).ppid() for pid in new.values()} == {stack.pid("api")}
    assert set(new) <= {0, 1, 2, 3}
    assert files(stack) == kept
    after = counters(stack)
    assert {name: (before[name], after[name]) for name in before if after[name] < before[name]} == {}
    assert_sums(stack.stats())
