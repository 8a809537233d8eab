"""The users resource on a real replica set, on both drivers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pymongo.errors import WriteError

from app.main import create_app
from app.settings.model import Settings
from app.users.listing import Listing
from app.users.repository import prepare
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client

pytestmark = pytest.mark.asyncio

NOBODY = "66f1a2b3c4d5e6f7a8b9c0d1"


@pytest.fixture
def app(replica_set: ReplicaSet, driver: str, settings: Callable[..., Settings]) -> FastAPI:
    return create_app(
        settings(
            mongodb_url=replica_set.url,
            mongodb_driver=driver,
            database_name=f"test_{uuid.uuid4().hex[:8]}",
            max_pool_size=10,
            min_pool_size=0,
        )
    )


@pytest_asyncio.fixture
async def http(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        async with asyncio.timeout(20):
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.05)
        yield http


async def created(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada", **fields}
    answer = await http.post("/users", json=body)
    assert answer.status_code == 201, answer.text
    user: dict[str, Any] = answer.json()
    return user


async def test_a_user_is_created_and_read(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/users", json={"email": "Ada@Example.ORG", "name": " Ada ", "age": 36, "city": "London", "tags": ["maths"]}
    )
    assert answer.status_code == 201
    user = answer.json()
    assert (user["email"], user["name"], user["version"]) == ("ada@example.org", "Ada", 1)
    assert answer.headers["location"] == f"/users/{user['id']}"
    read = await http.get(answer.headers["location"])
    assert read.json() == user
    assert read.headers["etag"] == answer.headers["etag"] == '"1"'
    assert float(read.headers["server-timing"].split("db;dur=")[1].split(",")[0]) > 0


async def test_what_the_caller_has_is_not_sent_again(http: httpx.AsyncClient) -> None:
    user = await created(http)
    answer = await http.get(f"/users/{user['id']}", headers={"If-None-Match": 'W/"1"'})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"1"')


async def test_nobody_is_not_found(http: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"/users/{NOBODY}")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
    answer = await http.patch(f"/users/{NOBODY}", json={"age": 1}, headers={"If-Match": '"1"'})
    assert answer.status_code == 404


async def test_an_email_is_unique_whatever_its_case(http: httpx.AsyncClient) -> None:
    await created(http, email="ada@example.org")
    answer = await http.post("/users", json={"email": "ADA@example.org", "name": "Other"})
    assert (answer.status_code, answer.json()["detail"]) == (409, "this email is taken")
    other = await created(http)
    answer = await http.patch(f"/users/{other['id']}", json={"email": "ada@example.org"}, headers={"If-Match": "*"})
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("Ada.Byron@EXAMPLE.org", "ada.byron@example.org"),
        (" ada@example.org ", "ada@example.org"),
        ("Ada Lovelace <ada@example.org>", "ada@example.org"),
        ("ada@XN--BCHER-KVA.example.org", "ada@bücher.example.org"),
        ("ADA@BÜCHER.example.org", "ada@bücher.example.org"),
        ("mu\u0308ller@example.org", "m\u00fcller@example.org"),
        ("ada@example。org", "ada@example.org"),
        ("ada+tag@example.org", "ada+tag@example.org"),
    ],
)
async def test_an_email_is_found_however_it_is_written(http: httpx.AsyncClient, written: str, stored: str) -> None:
    assert (await created(http, email=written))["email"] == stored
    for way in (written, stored):
        found = (await http.get("/users", params={"email": way})).json()
        assert [user["email"] for user in found["items"]] == [stored], way


@pytest.mark.parametrize("text", ["", "ada", "ada byron@example.org", "a" * 255])
async def test_a_filter_for_what_is_no_email_is_refused(http: httpx.AsyncClient, text: str) -> None:
    answer = await http.get("/users", params={"email": text})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.email")


async def test_a_city_and_a_tag_are_found_however_they_are_written(http: httpx.AsyncClient) -> None:
    user = await created(http, city=" Paris ", tags=[" maths"])
    for parameters in ({"city": "Paris "}, {"tag": " maths "}):
        found = (await http.get("/users", params=parameters)).json()
        assert [each["id"] for each in found["items"]] == [user["id"]]


async def test_of_a_hundred_equal_users_at_once_one_is_created(http: httpx.AsyncClient) -> None:
    body = {"email": "ada@example.org", "name": "Ada"}
    answers = await asyncio.gather(*(http.post("/users", json=body) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49


async def test_a_change_needs_the_version_that_is_there(http: httpx.AsyncClient) -> None:
    user = await created(http, age=36, city="London")
    url = f"/users/{user['id']}"
    changed = await http.patch(url, json={"age": 37, "city": None}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert (changed.json()["age"], changed.json()["city"], changed.json()["name"]) == (37, None, "Ada")
    late = await http.patch(url, json={"age": 38}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.headers["etag"]) == (412, '"2"')
    assert (await http.patch(url, json={}, headers={"If-Match": "*"})).status_code == 422
    assert (await http.patch(url, json={"name": None}, headers={"If-Match": "*"})).status_code == 422


async def test_of_many_changes_to_one_version_one_succeeds(http: httpx.AsyncClient) -> None:
    user = await created(http)
    change = {"json": {"age": 1}, "headers": {"If-Match": '"1"'}}
    answers = await asyncio.gather(*(http.patch(f"/users/{user['id']}", **change) for _ in range(20)))  # type: ignore[arg-type]
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 19


async def test_a_user_is_deleted_once(http: httpx.AsyncClient) -> None:
    url = f"/users/{(await created(http))['id']}"
    assert (await http.delete(url, headers={"If-Match": '"7"'})).status_code == 412
    assert (await http.delete(url, headers={"If-Match": '"1"'})).status_code == 204
    assert (await http.delete(url)).status_code == 404


async def test_each_user_of_a_bulk_has_its_own_outcome(http: httpx.AsyncClient) -> None:
    await created(http, email="taken@example.org")
    users = [
        {"email": "one@example.org", "name": "One"},
        {"email": "taken@example.org", "name": "Two"},
        {"email": "nonsense", "name": "Three"},
        {"email": "one@example.org", "name": "Four"},
        {"email": "five@example.org", "name": "Five"},
    ]
    answer = await http.post("/users/bulk", json={"users": users})
    assert answer.status_code == 207
    body = answer.json()
    assert (body["created"], body["failed"]) == (2, 3)
    assert [item["status"] for item in body["items"]] == [201, 409, 422, 409, 201]
    assert "email" in body["items"][2]["detail"]
    assert (await http.get(f"/users/{body['items'][4]['id']}")).json()["name"] == "Five"


async def test_a_bulk_that_succeeds_is_created(http: httpx.AsyncClient) -> None:
    users = [{"email": f"{n}@example.org", "name": "N"} for n in range(1000)]
    answer = await http.post("/users/bulk", json={"users": users})
    assert (answer.status_code, answer.json()["created"]) == (201, 1000)
    assert (await http.post("/users/bulk", json={"users": []})).status_code == 422
    assert (await http.post("/users/bulk", json={"users": users * 2})).status_code == 422


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-name", "age", "-age"])
async def test_pages_neither_repeat_nor_skip(http: httpx.AsyncClient, sort: str) -> None:
    ages = [None, 3, 3, None, 7, 0, None, 3, 7, 12]
    users = [
        {"email": f"{n}@example.org", "name": f"name {n % 3}", **({} if age is None else {"age": age})}
        for n, age in enumerate(ages)
    ]
    assert (await http.post("/users/bulk", json={"users": users})).status_code == 201
    everyone = (await http.get("/users", params={"sort": sort, "limit": 100})).json()["items"]
    assert len(everyone) == 10
    field = sort.lstrip("-")
    values = [(user[field] is not None, user[field] or 0) for user in everyone]
    assert values == sorted(values, reverse=sort.startswith("-"))
    paged, cursor = [], None
    while True:
        page = (
            await http.get("/users", params={"sort": sort, "limit": 3, **({"cursor": cursor} if cursor else {})})
        ).json()
        paged += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert paged == everyone


async def test_filters_narrow_the_list(http: httpx.AsyncClient) -> None:
    await created(http, email="a@example.org", city="Paris", age=30, tags=["x", "y"])
    await created(http, email="b@example.org", city="Paris", age=50)
    await created(http, email="c@example.org", city="Rome", tags=["y"])

    async def found(**params: Any) -> list[str]:
        items = (await http.get("/users", params=params)).json()["items"]
        return [user["email"][0] for user in items]

    assert await found(city="Paris") == ["a", "b"]
    assert await found(tag="y") == ["a", "c"]
    assert await found(email="B@example.org") == ["b"]
    assert await found(min_age=30, max_age=40) == ["a"]
    assert await found(city="Paris", min_age=40, sort="-age") == ["b"]


@pytest.mark.parametrize("sort", ["created_at", "-name", "age", "-age"])
async def test_every_order_is_answered_by_an_index(http: httpx.AsyncClient, app: FastAPI, sort: str) -> None:
    users = [{"email": f"{n}@example.org", "name": f"n{n}", "age": n % 50} for n in range(500)]
    await http.post("/users/bulk", json={"users": users})
    page = (await http.get("/users", params={"sort": sort, "limit": 5})).json()
    listing = Listing(sort=sort, cursor=page["next_cursor"])  # type: ignore[arg-type]
    command = {"find": "users", "filter": listing.query(), "sort": dict(listing.order), "limit": 6}
    plan = await app.state.sluice.database.command("explain", command, verbosity="executionStats")
    assert "COLLSCAN" not in str(plan)
    assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])
    assert plan["executionStats"]["totalDocsExamined"] <= 10


async def test_preparing_again_changes_nothing(http: httpx.AsyncClient, app: FastAPI) -> None:
    database = app.state.sluice.database
    await prepare(database)
    await database.command("collMod", "users", validator={})
    await asyncio.gather(prepare(database), prepare(database))
    listed = await database.command("listCollections", filter={"name": "users"})
    assert "$jsonSchema" in listed["cursor"]["firstBatch"][0]["options"]["validator"]


async def test_the_server_refuses_what_does_not_fit(http: httpx.AsyncClient, app: FastAPI) -> None:
    with pytest.raises(WriteError) as error:
        await app.state.sluice.collection("users").insert_one({"email": 7})
    assert error.value.code == 121


async def test_statistics_add_up(http: httpx.AsyncClient) -> None:
    await asyncio.gather(*(created(http) for _ in range(30)))
    await asyncio.sleep(1.1)
    stats = (await http.get("/connection-stats")).json()["connection_pool_stats"]
    assert stats["total_created"] > 0
    assert stats["current_connections"] == stats["idle_connections"] + stats["active_connections"]
    for name in ("current_connections", "active_connections", "total_created"):
        assert stats[name] == sum(worker[name] for worker in stats["workers"])
        assert stats[name] == sum(member[name] for member in stats["members"])


async def test_a_slow_query_ends_with_the_callers_time(
    http: httpx.AsyncClient, replica_set: ReplicaSet, app: FastAPI
) -> None:
    user = await created(http)
    slow = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 1500}
    for address in replica_set.addresses:
        with replica_set.direct(address) as direct:
            direct.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=slow)
    began = time.monotonic()
    answer = await http.get(f"/users/{user['id']}", headers={"X-Request-Timeout-Ms": "300"})
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-exceeded")
    assert time.monotonic() - began < 1


async def test_a_write_that_took_too_long_is_said_to_be_in_doubt(
    http: httpx.AsyncClient, replica_set: ReplicaSet
) -> None:
    await created(http)
    with replica_set.direct(replica_set.primary()) as direct:
        slow = {"failCommands": ["insert"], "blockConnection": True, "blockTimeMS": 1500}
        direct.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=slow)
    new = {"email": "slow@example.org", "name": "Ada"}
    answer = await http.post("/users", json=new, headers={"X-Request-Timeout-Ms": "300"})
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-exceeded")
    assert answer.json()["detail"].endswith("are used up; a write may have happened")


async def test_a_full_queue_refuses_at_once(http: httpx.AsyncClient, app: FastAPI) -> None:
    await created(http)
    waiting = app.state.settings.max_pool_size * app.state.settings.wait_queue_multiple
    many = (http.get("/users?limit=1") for _ in range(waiting * 3))  # a point read would travel with others
    answers = await asyncio.gather(*many)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/queue-full")
        assert answer.headers["retry-after"] == "1"
