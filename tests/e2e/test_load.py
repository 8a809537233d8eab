"""Statistics under load and at rest: exact, over all workers."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from whole_stack import Stack, Wrk, until

GAUGES = (
    "current_connections", "active_connections", "idle_connections", "available_connections", "connecting", "waiting",
    "wait_queue_limit", "paused_pools",
)  # fmt: skip
COUNTERS = ("total_created", "refused_queue_full", "refused_queue_timeout", "failed_to_open")


def assert_sums(stats: dict[str, Any]) -> None:
    """The total of each figure is the sum of its parts, by worker and by member."""
    assert stats["current_connections"] == stats["idle_connections"] + stats["active_connections"]
    for name in GAUGES:
        assert stats[name] == sum(worker[name] for worker in stats["workers"]), name
    for name in (*GAUGES, *COUNTERS):
        assert stats[name] == sum(member[name] for member in stats["members"]), name


def test_under_load_no_request_fails_and_the_sums_are_exact(stack: Stack, driver: str, user_ids: list[str]) -> None:
    stack.wait_until_whole()
    pids = stack.workers()
    with Wrk(stack, user_ids, seconds=8) as wrk:
        seen: list[tuple[float, int]] = []
        busy = 0
        for _ in range(100):
            stats = stack.stats()
            assert wrk.runs
            assert {worker["worker"]: worker["pid"] for worker in stats["workers"]} == pids
            assert_sums(stats)
            now = time.monotonic()
            seen.append((now, stats["total_created"]))
            # A worker knows the others' figures as they were when they last published, once a second.
            known = [count for moment, count in seen if moment < now - 2]
            assert stats["total_created"] >= max(known, default=0)
            busy += stats["active_connections"] > 0
        load = wrk.result()
    assert (load.non_2xx, load.socket_errors) == (0, 0)
    assert load.requests > 1000
    assert busy > 0


def reported_by_members(stack: Stack, apps: dict[str, str]) -> Counter[tuple[str, str]]:
    """How many connections each member reports for each worker's `appName`."""
    found: Counter[tuple[str, str]] = Counter()
    for port in stack.layout.mongo:
        with stack.member(port.number) as client:
            rows = client.admin.aggregate(
                [{"$currentOp": {"allUsers": True, "idleConnections": True}}, {"$match": {"connectionId": {"$gt": 0}}}]
            )
            for row in rows:
                if row.get("appName") in apps:
                    found[apps[row["appName"]], f"127.0.0.1:{port.number}"] += 1
    return found


def reported_by_workers(stack: Stack) -> Counter[tuple[str, str]]:
    """How many connections each worker has open to each member, monitors not counted."""
    found: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{stack.api_url}/metrics").text):
        if family.name == "db_client_connection_count":
            for sample in family.samples:
                found[sample.labels["worker"], sample.labels["server_address"]] += int(sample.value)
    # Motor's queue stands before all members and has no connections.
    return Counter({key: count for key, count in found.items() if key[1] != "*"})


def test_at_rest_each_member_reports_what_each_worker_does(stack: Stack, driver: str) -> None:
    stack.wait_until_whole()
    apps = {worker["app_name"]: str(worker["worker"]) for worker in stack.stats()["workers"]}
    assert len(apps) == 2
    monitors = 2

    def agree() -> bool:
        before, members, after = (
            reported_by_workers(stack),
            reported_by_members(stack, apps),
            reported_by_workers(stack),
        )
        assert before == after, "not at rest"
        ours = {key: count + monitors for key, count in before.items()}
        assert dict(members) == ours, f"members say {dict(members)}, workers {ours}"
        return len(ours) == 6

    until(agree, 30)
    stats = stack.stats()
    assert_sums(stats)
    assert stats["current_connections"] == sum(reported_by_workers(stack).values())
