"""MongoDB stopped, and its primary killed: the service says so, stays alive and comes back by itself."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
from bson import ObjectId
from load import Callers
from test_users import assert_problem
from whole_stack import Stack, kill, until

BUDGET = 10
"""REQUEST_TIMEOUT_MS, in seconds."""


def seconds_until_every_worker_serves(stack: Stack, since: float) -> float:
    """Ask on new connections until both workers have said that they can."""
    serving: set[int] = set()

    def both() -> bool:
        answer = httpx.get(f"{stack.api_url}/health")
        if answer.status_code == 200:
            serving.add(answer.json()["worker"])
        return len(serving) == 2

    until(both)
    return time.monotonic() - since


def assert_unavailable(stack: Stack, method: str, path: str) -> None:
    """The request is answered within its budget, and says that repeating it helps."""
    body = {"email": "nobody@example.org", "name": "Nobody"} if method == "POST" else None
    started = time.monotonic()
    answer = stack.http.request(method, path, json=body)
    assert time.monotonic() - started < BUDGET
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


def test_without_mongodb_the_service_says_so_and_recovers_by_itself(
    stack: Stack, driver: str, user_ids: list[str]
) -> None:
    stack.wait_until_whole()
    workers = stack.workers()
    members = [f"mongod-{port.number}" for port in stack.layout.mongo]
    user = f"/users/{user_ids[0]}"
    requests = [("GET", "/users"), ("GET", user), ("DELETE", user), ("POST", "/users")]
    stack.control("stop", *members)
    try:
        until(lambda: stack.http.get("/health/ready").status_code == 503)
        with ThreadPoolExecutor() as callers:
            for each in [callers.submit(assert_unavailable, stack, *request) for request in requests]:
                each.result()
        started = time.monotonic()
        assert stack.http.get("/health/live").status_code == 200
        assert stack.http.get("/health").json()["status"] == "unavailable"
        assert time.monotonic() - started < 1
        assert stack.workers() == workers
    finally:
        starting = threading.Thread(target=stack.control, args=("start", *members))
        starting.start()
    stack.wait_for_primary()
    elected = time.monotonic()
    assert seconds_until_every_worker_serves(stack, elected) < 5  # no heartbeat (10 s) is waited for
    while (answer := stack.http.get(user)).status_code != 200:
        assert_problem(answer, 503, "not-primary")  # the new primary can't check the driver's cluster time yet
    assert time.monotonic() - elected < 5
    assert stack.http.get("/health/ready").status_code == 200
    starting.join()
    stack.wait_until_whole()
    assert stack.workers() == workers


def test_reads_and_writes_go_on_after_the_primary_was_killed(stack: Stack, driver: str, user_ids: list[str]) -> None:
    stack.wait_until_whole()
    workers, primary = stack.workers(), stack.wait_for_primary()
    created: list[str] = []

    def write(client: httpx.Client) -> httpx.Response:
        answer = client.post("/users", json={"email": f"{uuid.uuid4().hex}@example.org", "name": "Grace Hopper"})
        if answer.status_code == 201:
            created.append(answer.json()["id"])
        return answer

    def read(client: httpx.Client) -> httpx.Response:
        return client.get(f"/users/{user_ids[0]}")

    with Callers(stack, read, callers=4) as readers, Callers(stack, write, callers=4) as writers:
        kill(stack.pid(f"mongod-{primary}"))
        until(lambda: stack.primary() not in (None, primary), 30)
        readers.wait_for(200)
        writers.wait_for(201)
    assert set(readers.outcomes) <= {200, 503, 504}
    assert set(writers.outcomes) <= {201, 503, 504}  # a write that was repeated by mistake would be a 409
    stack.wait_until_whole()
    assert stack.workers() == workers
    with stack.member(stack.wait_for_primary(), "admin") as client:
        kept = client["sluice"]["users"].count_documents({"_id": {"$in": [ObjectId(each) for each in created]}})
    assert kept == len(created) == Counter(writers.outcomes)[201]
