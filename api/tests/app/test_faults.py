"""What the members' faults mean to callers, on real members: a status that is true, and no 500."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pymongo.errors import PyMongoError

from app.http import errors
from app.main import create_app
from app.settings.model import Settings
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client
from tests.sluice.support import fail

pytestmark = pytest.mark.asyncio

DOUBT = "; a write may have happened"
UNCONFIRMED = ("/problems/write-concern-timeout", 504)


@pytest.fixture
def app(replica_set: ReplicaSet, driver: str, settings: Callable[..., Settings]) -> FastAPI:
    return create_app(
        settings(
            mongodb_url=replica_set.url,
            mongodb_driver=driver,
            database_name=f"test_{uuid.uuid4().hex[:8]}",
            max_pool_size=10,
            min_pool_size=0,
            heartbeat_frequency_ms=500,
        )
    )


@pytest_asyncio.fixture
async def http(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        async with asyncio.timeout(20):
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        yield http


def new() -> dict[str, str]:
    return {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada"}


async def some(http: httpx.AsyncClient, count: int = 1) -> list[str]:
    """The ids of some users that were created one after the other."""
    return [(await http.post("/users", json=new())).json()["id"] for _ in range(count)]


def writes(http: httpx.AsyncClient, user: str) -> dict[str, tuple[str, Callable[[], Awaitable[httpx.Response]]]]:
    """Every way to write: the server's command, and the request."""
    return {
        "create": ("insert", lambda: http.post("/users", json=new())),
        "bulk": ("insert", lambda: http.post("/users/bulk", json={"users": [new(), new()]})),
        "change": ("findAndModify", lambda: http.patch(f"/users/{user}", json={"age": 7}, headers={"If-Match": "*"})),
        "delete": ("delete", lambda: http.delete(f"/users/{user}")),
    }


def in_doubt(answer: httpx.Response) -> bool:
    return answer.json()["detail"].endswith(DOUBT) and "retry-after" not in answer.headers


def problem(answer: httpx.Response) -> tuple[str, int]:
    return answer.json()["type"], answer.status_code


async def test_a_write_that_is_not_confirmed_may_stand(http: httpx.AsyncClient, replica_set: ReplicaSet) -> None:
    for code in (50, 64, 100, 10107, 11601, 11602):
        for command, write in writes(http, *await some(http)).values():
            unconfirmed = {"code": code, "errmsg": "waiting for replication failed", "codeName": "x"}
            fail(replica_set, replica_set.primary(), [command], times=2, writeConcernError=unconfirmed)
            answer = await write()
            assert problem(answer) == UNCONFIRMED
            assert in_doubt(answer)
            fail(replica_set, replica_set.primary(), [command], times=0)


async def test_a_batch_that_is_not_confirmed_may_stand(http: httpx.AsyncClient, replica_set: ReplicaSet) -> None:
    await some(http)
    stored = 1
    for code in (50, 64, 11601, 11602):
        unconfirmed = {"code": code, "errmsg": "waiting for replication failed"}
        fail(replica_set, replica_set.primary(), ["insert"], times=20, writeConcernError=unconfirmed)
        answers = await asyncio.gather(*(http.post("/users", json=new()) for _ in range(20)))
        fail(replica_set, replica_set.primary(), ["insert"], times=0)
        for answer in answers:  # those that went alone and those that travelled together
            assert problem(answer) == UNCONFIRMED
            assert in_doubt(answer)
        stored += len(answers)
        assert len((await http.get("/users", params={"limit": 100})).json()["items"]) == stored  # they stand


async def test_a_write_that_fails_is_in_doubt(http: httpx.AsyncClient, replica_set: ReplicaSet) -> None:
    for code in (10107, 9001, 50, 11601, 112, 14031, 16500):
        for command, write in writes(http, *await some(http)).values():
            fail(replica_set, replica_set.primary(), [command], times=2, errorCode=code)
            answer = await write()
            assert answer.status_code in (503, 504), (code, command, answer.text)
            assert in_doubt(answer), answer.text
            fail(replica_set, replica_set.primary(), [command], times=0)


async def test_a_write_of_which_the_server_says_that_nothing_happened_may_be_repeated(
    http: httpx.AsyncClient, replica_set: ReplicaSet
) -> None:
    await some(http)
    labels = ["RetryableWriteError", "NoWritesPerformed"]
    fail(replica_set, replica_set.primary(), ["insert"], times=2, errorCode=10107, errorLabels=labels)
    answer = await http.post("/users", json=new())
    assert problem(answer) == ("/problems/not-primary", 503)
    assert answer.headers["retry-after"] == "2"
    assert DOUBT not in answer.json()["detail"]


async def test_a_lost_connection_leaves_a_write_in_doubt(http: httpx.AsyncClient, replica_set: ReplicaSet) -> None:
    (user,) = await some(http)
    for command, write in writes(http, user).values():
        fail(replica_set, replica_set.primary(), [command], times=2, closeConnection=True)
        answer = await write()
        assert problem(answer) == ("/problems/connection-lost", 503)
        assert in_doubt(answer)


async def test_a_read_that_fails_may_be_repeated(http: httpx.AsyncClient, replica_set: ReplicaSet) -> None:
    (user,) = await some(http)
    for code in (11600, 11601, 43, 133, 211, 237, 6, 134, 16500):
        for path in (f"/users/{user}", "/users"):
            fail(replica_set, replica_set.primary(), ["find"], times=2, errorCode=code)
            answer = await http.get(path)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            fail(replica_set, replica_set.primary(), ["find"], times=0)


async def in_a_transaction(app: FastAPI) -> None:
    sluice = app.state.sluice
    async with sluice.transaction() as session:
        await sluice.collection("users").delete_one({"_id": 1}, session=session)


UNKNOWN_COMMITS: list[dict[str, Any]] = [
    {"closeConnection": True},
    {"errorCode": 11602},
    {"errorCode": 50},
    {"writeConcernError": {"code": 64, "errmsg": "late", "errInfo": {"wtimeout": True}}},
    {"writeConcernError": {"code": 11602, "errmsg": "stepped down"}},
]


async def test_a_commit_is_unknown_where_nobody_says_whether_it_was(
    http: httpx.AsyncClient, app: FastAPI, replica_set: ReplicaSet
) -> None:
    for data in UNKNOWN_COMMITS:
        await in_a_transaction(app)  # waits for a primary, should the last one have been lost
        fail(replica_set, replica_set.primary(), ["commitTransaction"], times=2, **data)
        with pytest.raises(PyMongoError) as caught:
            await in_a_transaction(app)
        fail(replica_set, replica_set.primary(), ["commitTransaction"], times=0)
        answer = errors.problem_of(caught.value, "POST")
        assert (answer.kind.type, answer.kind.status) == ("/problems/commit-unknown", 504), (data, caught.value)
        assert answer.detail.endswith(DOUBT)


async def test_a_transaction_that_was_aborted_may_be_repeated_as_a_whole(
    http: httpx.AsyncClient, app: FastAPI, replica_set: ReplicaSet
) -> None:
    aborts: list[dict[str, Any]] = [{"closeConnection": True}, {"errorCode": 112}, {"errorCode": 251}]
    for data in aborts:
        await in_a_transaction(app)
        fail(replica_set, replica_set.primary(), ["delete"], times=1, **data)
        with pytest.raises(PyMongoError) as caught:
            await in_a_transaction(app)
        answer = errors.problem_of(caught.value, "POST")
        assert (answer.kind.type, answer.kind.retry_after) == ("/problems/transaction-aborted", 1), (data, caught.value)
        assert DOUBT not in answer.detail


async def test_the_rest_of_a_bulk_is_told_beside_what_nobody_expected(
    http: httpx.AsyncClient, app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    await http.post("/users", json={"email": "taken@example.org", "name": "Ada"})
    # Two equal unique values of another kind: the code is that of a duplicate, the field isn't the e-mail's.
    await app.state.sluice.collection("users").create_index([("tags", 1), ("city", "2dsphere")], name="odd")
    users = [new(), {**new(), "city": "nowhere"}, {"email": "taken@example.org", "name": "Bob"}]
    answer = await http.post("/users/bulk", json={"users": users})
    assert answer.status_code == 207
    assert [item["status"] for item in answer.json()["items"]] == [201, 500, 409]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.users.routes"]
    assert line.startswith("1 users of a bulk were not created: MongoDB: 16755")


class Killer:
    """An operator who kills every operation of ours, over and over."""

    def __init__(self, replica_set: ReplicaSet, database: str) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(replica_set, database))
        self.killed = 0

    def _run(self, replica_set: ReplicaSet, database: str) -> None:
        mine: list[dict[str, Any]] = [
            {"$currentOp": {"allUsers": True}},
            {"$match": {"ns": {"$regex": f"^{database}[.]"}}},
        ]
        with replica_set.direct(replica_set.primary()) as client:
            while not self._ended.is_set():
                for operation in client.admin.aggregate(mine):
                    client.admin.command("killOp", op=operation["opid"])
                    self.killed += 1
                with suppress(PyMongoError):  # it may kill its own
                    client.admin.command("killAllSessions", [])

    async def __aenter__(self) -> Killer:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        await asyncio.to_thread(self._thread.join)


async def test_whoever_kills_operations_makes_nobody_believe_what_is_not_so(
    http: httpx.AsyncClient, app: FastAPI, replica_set: ReplicaSet
) -> None:
    users = await some(http, 20)
    answers: list[tuple[str, str, httpx.Response]] = []
    ends = time.monotonic() + 4

    async def go_on(number: int) -> None:
        while time.monotonic() < ends:
            user = users[number % len(users)]
            body = new()
            choices: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", f"/users/{user}", {}),
                ("GET", "/users", {}),
                ("POST", "/users", {"json": body}),
                ("PATCH", f"/users/{user}", {"json": {"age": number}, "headers": {"If-Match": "*"}}),
                ("POST", "/users/bulk", {"json": {"users": [new(), new()]}}),
            ]
            method, path, more = choices[number % len(choices)]
            answers.append((method, body["email"], await http.request(method, path, **more)))

    # Slow enough that many are met at work, and while they wait for the other members.
    slow = {"failCommands": ["find", "insert", "findAndModify"], "blockConnection": True, "blockTimeMS": 30}
    with replica_set.direct(replica_set.primary()) as direct:
        direct.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=slow)
    async with Killer(replica_set, app.state.settings.database_name) as killer:
        await asyncio.gather(*(go_on(number) for number in range(20)))
    assert killer.killed > 20
    unlucky = [answer for _, _, answer in answers if answer.status_code not in (200, 201)]
    assert unlucky
    assert {answer.status_code for answer in unlucky} <= {503, 504}, {answer.text for answer in unlucky}
    for method, email, answer in answers:
        if answer.status_code in (503, 504) and method != "GET":
            assert in_doubt(answer), answer.text
        elif answer.status_code == 201 and "email" in answer.json():
            assert answer.json()["email"] == email


async def test_a_member_that_is_away_is_named(http: httpx.AsyncClient, replica_set: ReplicaSet) -> None:
    lost = next(address for address in replica_set.addresses if address != replica_set.primary())
    replica_set.kill(lost)
    async with asyncio.timeout(20):
        while (health := (await http.get("/health")).json())["status"] == "ok":
            await asyncio.sleep(0.05)
    assert (health["status"], health["reason"]) == ("degraded", f"not reached: {lost}")
