"""`Idempotency-Key`: what it names happens once, whoever repeats it, and whenever; on both drivers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, SecretStr
from pymongo import MongoClient

from app.data.idempotency import digest
from app.main import create_app
from app.settings.model import Settings
from sluice import Sluice
from stack.free_ports import free_ports
from stack.mongod import TRANSACTION_SECONDS, find_mongod, mongod_command
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client, Service

NEW = {"email": "ada@example.org", "name": "Ada"}


def with_key(key: str = "") -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.fixture(params=[True, False], ids=["with a key", "without"])
def keyed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def same(first: httpx.Response, second: httpx.Response) -> bool:
    """Whether they are one answer, but for what belongs to a request."""
    headers = ("location", "etag", "content-type")
    return (first.status_code, first.json(), [first.headers.get(name) for name in headers]) == (
        second.status_code, second.json(), [second.headers.get(name) for name in headers],
    )  # fmt: skip


async def count(service: Service) -> int:
    return len((await service.http.get("/users", params={"limit": 100})).json()["items"])


async def test_a_create_that_is_repeated_gets_its_first_answer(service: Service) -> None:
    headers = with_key()
    first = await service.http.post("/users", json=NEW, headers=headers)
    assert first.status_code == 201
    await service.http.patch(first.headers["location"], json={"name": "Other"}, headers={"If-Match": "*"})
    again = await service.http.post("/users", json=dict(reversed(NEW.items())), headers=headers)
    assert same(first, again)
    assert await count(service) == 1


async def test_a_key_belongs_to_one_request(service: Service) -> None:
    headers = with_key()
    assert (await service.http.post("/users", json=NEW, headers=headers)).status_code == 201
    for path, body in (("/users", {**NEW, "name": "Bob"}), ("/users/bulk", {"users": [NEW]})):
        refused = await service.http.post(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/idempotency-key-reused")
    other = await service.http.post("/users", json={**NEW, "email": "b@example.org"}, headers=headers)
    assert other.status_code == 422
    assert await count(service) == 1


async def test_a_key_belongs_to_the_query_too(service: Service) -> None:
    headers = with_key()
    assert (await service.http.post("/users", params={"x": "1"}, json=NEW, headers=headers)).status_code == 201
    assert (await service.http.post("/users", params={"x": "2"}, json=NEW, headers=headers)).status_code == 422
    assert (await service.http.post("/users", params={"x": "1"}, json=NEW, headers=headers)).status_code == 201


async def test_two_keys_are_none(service: Service) -> None:
    two = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    for path, body in (("/users", NEW), ("/users/bulk", {"users": [NEW]})):
        refused = await service.http.post(path, json=body, headers=two)
        assert (refused.status_code, refused.json()["type"]) == (400, "/problems/bad-request")
        assert "Idempotency-Key" in refused.json()["detail"]
    assert await count(service) == 0


async def test_a_key_whose_time_is_over_is_new(service: Service) -> None:
    """Though it's still there: MongoDB deletes what has expired once a minute."""
    headers = with_key()
    created = await service.http.post("/users", json=NEW, headers=headers)
    past = {"$set": {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}}
    sluice: Sluice = service.app.state.sluice
    await sluice.collection("idempotency_keys").update_one({"_id": headers["Idempotency-Key"]}, past)
    await service.http.delete(created.headers["location"])
    again = await service.http.post("/users", json=NEW | {"name": "Other"}, headers=headers)
    assert (again.status_code, again.json()["name"]) == (201, "Other")
    assert same(again, await service.http.post("/users", json=NEW | {"name": "Other"}, headers=headers))


async def test_another_key_is_another_request(service: Service) -> None:
    assert (await service.http.post("/users", json=NEW, headers=with_key())).status_code == 201
    assert (await service.http.post("/users", json=NEW, headers=with_key())).status_code == 409


async def test_what_failed_is_not_kept(service: Service) -> None:
    headers = with_key()
    assert (await service.http.post("/users", json=NEW)).status_code == 201
    assert (await service.http.post("/users", json=NEW, headers=headers)).status_code == 409
    (user,) = (await service.http.get("/users")).json()["items"]
    await service.http.delete(f"/users/{user['id']}")
    assert (await service.http.post("/users", json=NEW, headers=headers)).status_code == 201


async def test_a_bulk_keeps_the_outcome_of_each(service: Service) -> None:
    assert (await service.http.post("/users", json=NEW)).status_code == 201
    people: list[dict[str, Any]] = [
        {"email": "a@example.org", "name": "A"}, NEW, {"email": "a@example.org", "name": "A"}, {"email": "no"},
    ]  # fmt: skip
    headers = with_key()
    first = await service.http.post("/users/bulk", json={"users": people}, headers=headers)
    assert (first.status_code, [item["status"] for item in first.json()["items"]]) == (207, [201, 409, 409, 422])
    assert same(first, await service.http.post("/users/bulk", json={"users": people}, headers=headers))
    without = await service.http.post("/users/bulk", json={"users": [NEW]})
    assert without.json()["items"][0]["detail"] == first.json()["items"][1]["detail"]
    assert await count(service) == 2


@pytest.mark.parametrize("path", ["/users", "/users/bulk"])
async def test_repeats_at_the_same_time_get_one_answer(service: Service, path: str) -> None:
    headers = with_key()
    body = NEW if path == "/users" else {"users": [NEW, {"email": "b@example.org", "name": "Bob"}]}
    answers = await asyncio.gather(*(service.http.post(path, json=body, headers=headers) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [201] * 20
    assert all(same(answers[0], answer) for answer in answers)
    assert await count(service) == (1 if path == "/users" else 2)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_a_key_is_printable_and_short(service: Service, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]
    refused = await service.http.post("/users", json=NEW, headers=headers)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "header.Idempotency-Key"


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        ({"users": [{"email": "a@example.org", "name": "\ud800"}, NEW]}, [422, 201]),
        ({"users": [{"email": "a@example.org", "\ud800": 1}, NEW]}, [422, 201]),
        ({"users": [{"email": "a@example.org", "name": "A", "more": nested(300)}, NEW]}, [422, 201]),
        ({"users": [nested(300), NEW]}, [422, 201]),
    ],
    ids=["lone surrogate", "lone surrogate as a name", "nested", "nested alone"],
)
async def test_an_odd_item_of_a_bulk_fails_alone(
    service: Service, body: dict[str, Any], statuses: list[int], keyed: bool
) -> None:
    headers = {"Content-Type": "application/json", **(with_key() if keyed else {})}
    for _ in range(2 if keyed else 1):
        answer = await service.http.post("/users/bulk", content=json.dumps(body), headers=headers)
        assert (answer.status_code, [item["status"] for item in answer.json()["items"]]) == (207, statuses)


async def test_the_order_of_fields_is_none_of_the_requests(service: Service) -> None:
    headers = with_key()
    first = await service.http.post("/users/bulk", json={"users": [NEW]}, headers=headers)
    again = await service.http.post("/users/bulk", json={"users": [dict(reversed(NEW.items()))]}, headers=headers)
    assert first.status_code == 201
    assert same(first, again)


class Odd(BaseModel):
    """Of everything that a body may be parsed to."""

    model_config = ConfigDict(extra="allow")

    when: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    tags: frozenset[str] = frozenset()
    secret: SecretStr = SecretStr("")
    by_id: dict[uuid.UUID, int] = {}
    raw: bytes = b""
    inner: Odd | None = None


def test_whatever_differs_makes_another_request() -> None:
    one = uuid.UUID(int=1)
    requests = [
        Odd(), Odd(when=datetime(2025, 1, 1, tzinfo=UTC)), Odd(tags=frozenset("ab")), Odd(tags=frozenset("ac")),
        Odd(secret=SecretStr("a")), Odd(secret=SecretStr("b")), Odd(by_id={one: 1}), Odd(by_id={one: 2}),
        Odd(raw=b"\xff"), Odd(inner=Odd()), Odd(inner=Odd(raw=b"x")), Odd.model_validate({"more": 1}),
    ]  # fmt: skip
    assert len({digest("POST /users", request) for request in requests}) == len(requests)
    assert digest("POST /users", requests[0]) != digest("POST /others", requests[0])
    for request in requests:
        if request.raw != b"\xff" and not request.secret:  # JSON has no word for the one, and hides the other
            assert digest("", Odd.model_validate_json(request.model_dump_json())) == digest("", request)


async def test_a_route_that_takes_no_key_is_not_asked_with_one(service: Service) -> None:
    asked = []

    @service.app.post("/mails")
    async def send() -> None:
        asked.append(1)

    refused = await service.http.post("/mails", headers=with_key())
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/bad-request")
    assert "Idempotency-Key" in refused.json()["detail"]
    assert not asked
    assert (await service.http.post("/mails")).status_code == 200


async def test_a_key_is_forgotten_in_time(service: Service, replica_set: ReplicaSet) -> None:
    await service.http.post("/users", json=NEW, headers=with_key("kept"))
    database = service.app.state.settings.database_name
    with MongoClient[dict[str, Any]](replica_set.url, tz_aware=True) as client:
        keys = client[database]["idempotency_keys"]
        record = keys.find_one({"_id": "kept"})
        assert record is not None
        day = timedelta(seconds=service.app.state.settings.idempotency_key_ttl)
        assert abs(record["expires_at"] - datetime.now(UTC) - day) < timedelta(minutes=5)
        assert keys.index_information()["expires_at"]["expireAfterSeconds"] == 0


async def test_what_a_client_that_was_killed_held_is_done_once_the_server_has_given_it_up(
    service: Service, replica_set: ReplicaSet
) -> None:
    """Killed between insert and commit: nobody ends that transaction but the server."""
    database = service.app.state.settings.database_name
    limit = "transactionLifetimeLimitSeconds"
    with MongoClient[dict[str, Any]](replica_set.url) as killed:
        before = killed.admin.command({"getParameter": 1, limit: 1})[limit]
        assert before == TRANSACTION_SECONDS
        killed.admin.command({"setParameter": 1, limit: 1})
        try:
            session = killed.start_session()
            session.start_transaction()
            now = datetime.now(UTC)
            user: dict[str, Any] = {
                **NEW,
                "age": None,
                "city": None,
                "tags": [],
                "created_at": now,
                "updated_at": now,
                "version": 1,
            }
            killed[database]["users"].insert_one(user, session=session)
            killed[database]["idempotency_keys"].insert_one(
                {"_id": "held", "request": b"", "answer": {}, "expires_at": now}, session=session
            )
            answer = await service.http.post("/users", json=NEW, headers=with_key("held"))
        finally:
            killed.admin.command({"setParameter": 1, limit: before})
    assert answer.status_code == 201
    assert await count(service) == 1


@pytest.mark.parametrize(
    "options", ["readPreference=secondaryPreferred", "readPreference=nearest", "readConcernLevel=available"]
)
@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_single_reads_may_be_of_another_kind(
    replica_set: ReplicaSet, driver: str, settings: Callable[..., Settings], client: Client, options: str
) -> None:
    """What the connection string says of them holds for no transaction, nor for the look at a key."""
    database = f"test_{uuid.uuid4().hex[:8]}"
    url = f"{replica_set.url}&{options}"
    app = create_app(settings(mongodb_url=url, mongodb_driver=driver, database_name=database, min_pool_size=0))
    try:
        async with app.router.lifespan_context(app), client(app) as http:
            assert await app.state.sluice.wait_until_prepared(20)
            for path, body in (("/users", NEW), ("/users/bulk", {"users": [{"email": "b@example.org", "name": "B"}]})):
                headers = with_key()
                answers = [await http.post(path, json=body, headers=headers) for _ in range(20)]
                assert {answer.status_code for answer in answers} == {201}
                assert all(same(answers[0], answer) for answer in answers)
    finally:
        with MongoClient[dict[str, Any]](replica_set.url) as database_client:
            database_client.drop_database(database)


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that is no member of a set; its address."""
    (port,) = free_ports(1)
    data = tmp_path_factory.mktemp("standalone")
    command = mongod_command(
        find_mongod(), port, data=data, log=data / "log", cache_gb=0.25, shutdown_ms=0, replica_set=None
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    yield f"mongodb://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("driver", ["pymongo", "motor"])
async def test_without_transactions_a_key_is_refused_in_words(
    standalone: str,
    driver: str,
    known: bool,
    settings: Callable[..., Settings],
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_app(settings(mongodb_url=standalone, mongodb_driver=driver, database_name=driver, min_pool_size=0))
    async with app.router.lifespan_context(app), client(app) as http:
        assert await app.state.sluice.wait_until_prepared(20)
        if not known:  # it restarts
            monkeypatch.setattr(app.state.sluice, "roles", dict)
        refused = await http.post("/users", json=NEW, headers=with_key())
        assert (refused.status_code, refused.json()["type"]) == (501, "/problems/not-implemented")
        assert "Idempotency-Key" in refused.json()["detail"]
        assert (await http.post("/users", json=NEW | {"email": f"{known}@example.org"})).status_code == 201
