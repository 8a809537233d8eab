"""A database that isn't as it should be: what isn't ours is left alone, and nothing is written before it's ready."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from bson import Int64, ObjectId
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from fastapi import FastAPI
from pymongo import MongoClient
from pymongo.database import Database

from app.main import create_app
from app.settings.model import Settings
from app.users.model import SCHEMA
from app.users.repository import INDEXES
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client

pytestmark = pytest.mark.asyncio

Document = dict[str, Any]
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
NOW = datetime(2026, 11, 23, 1, 49, tzinfo=UTC)
THEIRS = {"$jsonSchema": {"bsonType": "object", "required": ["login"]}}


@pytest.fixture(scope="module")
def guarded() -> Iterator[ReplicaSet]:
    """One member, on which a user may only read and write."""
    replica_set = ReplicaSet(1, auth=True)
    try:
        replica_set.start()
        replica_set.create_user("plain", {"role": "readWriteAnyDatabase", "db": "admin"})
        yield replica_set
    finally:
        replica_set.stop()


@pytest.fixture
def database(guarded: ReplicaSet) -> Iterator[Database[Document]]:
    """As the administrator sees it."""
    with MongoClient[Document](guarded.url_of("root"), tz_aware=True) as client:
        database = client[f"test_{uuid.uuid4().hex[:8]}"]
        yield database
        client.admin.command("configureFailPoint", "failCommand", mode="off")
        client.drop_database(database.name)


@pytest.fixture
def serve(
    guarded: ReplicaSet, database: Database[Document], driver: str, settings: Callable[..., Settings], client: Client
) -> Serve:
    """The service on that database, as this user; once it has either succeeded or failed to prepare it."""

    @asynccontextmanager
    async def start(user: str = "root", **given: Any) -> AsyncIterator[httpx.AsyncClient]:
        url = guarded.url_of(user)
        app = create_app(
            settings(mongodb_url=url, mongodb_driver=driver, database_name=database.name, min_pool_size=0, **given)
        )
        async with client(app) as http, app.router.lifespan_context(app):
            await tried(app)
            yield http

    return start


async def tried(app: FastAPI) -> None:
    async with asyncio.timeout(20):
        while "not been reached" in (app.state.sluice.reason or ""):
            await asyncio.sleep(0.02)


def fail(database: Database[Document], command: str, code: int) -> None:
    data = {"failCommands": [command], "errorCode": code}
    database.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)


async def twice(http: httpx.AsyncClient) -> list[int]:
    body = {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada"}
    return [(await http.post("/users", json=body)).status_code for _ in range(2)]


async def assert_nothing_is_written(http: httpx.AsyncClient, why: str) -> None:
    someone = f"/users/{ObjectId()}"
    body = {"email": "ada@example.org", "name": "Ada"}
    for method, path, json in (
        ("POST", "/users", body),
        ("POST", "/users/bulk", {"users": [body]}),
        ("PATCH", someone, {"age": 3}),
        ("DELETE", someone, None),
    ):
        answer = await http.request(method, path, json=json, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/not-prepared")
        assert why in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
    ready = await http.get("/health/ready")
    assert (ready.status_code, why in ready.json()["detail"]) == (503, True)
    health = await http.get("/health")
    assert (health.status_code, health.json()["status"], why in health.json()["reason"]) == (503, "unavailable", True)
    assert (await http.get("/users")).status_code == 200


def state(database: Database[Document]) -> Any:
    """Of what was there; another resource may have made collections of its own."""
    infos = [dict(info) for info in database.list_collections() if info["name"] in ("users", "people")]
    names = sorted(info["name"] for info in infos)
    tables = [info["name"] for info in infos if info["type"] == "collection"]
    return (
        sorted((info["name"], str(info["options"])) for info in infos),
        {name: list(database[name].find()) for name in names},
        {name: database[name].index_information() for name in tables},
    )


async def a_schema(database: Database[Document]) -> None:
    database.create_collection("users", validator=THEIRS)


async def documents(database: Database[Document]) -> None:
    database.users.insert_one({"_id": 7, "login": "eve"})


async def documents_with_some_of_our_indexes(database: Database[Document]) -> None:
    database.users.insert_one({"email": "eve@example.org"})
    database.users.create_index("email", name="email", unique=True)


async def indexes(database: Database[Document]) -> None:
    database.users.create_index("login", unique=True)


async def options(database: Database[Document]) -> None:
    database.create_collection("users", capped=True, size=4096)


async def a_view(database: Database[Document]) -> None:
    database.people.insert_one({"login": "eve"})
    database.command("create", "users", viewOn="people", pipeline=[])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (a_schema, "its schema isn't ours (without a title, not sluice.users v1)"),
        (documents, "it has documents, and no schema of ours"),
        (documents_with_some_of_our_indexes, "it has documents, and no schema of ours"),
        (indexes, "it has indexes of others (login_1)"),
        (options, "it was made with options of others (capped, size)"),
        (a_view, "it is a view"),
    ],
)
async def test_a_collection_of_others_is_left_alone_and_named(
    database: Database[Document], serve: Serve, make: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    await make(database)
    before = state(database)
    async with serve() as http:
        await assert_nothing_is_written(http, why)
        await asyncio.sleep(1)  # in which it is tried again
    assert state(database) == before
    said = [record.getMessage() for record in caplog.records if "not ready" in record.getMessage()]
    assert len(said) == 1
    assert f"connection pool not ready: collection users of database {database.name} isn't this service's: " in said[0]
    assert "DATABASE_NAME" in said[0]


async def test_a_collection_of_others_is_adopted_on_purpose(database: Database[Document], serve: Serve) -> None:
    database.create_collection("users", validator=THEIRS)
    database.users.insert_one({"login": "eve"})
    async with serve() as http:
        assert (await http.get("/health/ready")).status_code == 503
        database.command("collMod", "users", validator={"$jsonSchema": {"title": "sluice.users v0"}})
        await ready(http)
        assert await twice(http) == [201, 409]
        assert (await http.get("/users")).json()["unreadable"] == 1
    assert database.users.options()["validator"] == {"$jsonSchema": SCHEMA}


@pytest.mark.parametrize("schema", [SCHEMA | {"title": "sluice.users v0"}, {"bsonType": "object"}, None])
async def test_an_older_schema_of_ours_is_replaced(database: Database[Document], serve: Serve, schema: Any) -> None:
    database.create_collection("users", validator={"$jsonSchema": schema} if schema else {})
    if not (schema or {}).get("title"):  # of before there were titles, or lost in a restore
        database.users.create_indexes(INDEXES)
    async with serve() as http:
        await ready(http)
        assert (await http.get("/health")).json()["reason"] is None
    assert database.users.options()["validator"] == {"$jsonSchema": SCHEMA}


async def test_a_newer_schema_of_ours_stays(database: Database[Document], serve: Serve) -> None:
    newer = {"$jsonSchema": {**SCHEMA, "title": "sluice.users v2", "additionalProperties": True}}
    database.create_collection("users", validator=newer)
    async with serve() as http:
        await ready(http)
    assert database.users.options()["validator"] == newer


@pytest.mark.parametrize("title", ["sluice.users v1", None])
async def test_a_user_with_read_write_alone_serves_an_unchanged_schema(
    database: Database[Document], serve: Serve, title: str | None
) -> None:
    async with serve("plain") as http:
        assert await twice(http) == [201, 409]
    if title is None:
        untitled = {key: value for key, value in SCHEMA.items() if key != "title"}
        database.command("collMod", "users", validator={"$jsonSchema": untitled})
    before = database.users.options()
    async with serve("plain") as http:
        await ready(http)
        health = (await http.get("/health")).json()
        assert (health["status"], health["reason"]) == ("ok", None)
        assert await twice(http) == [201, 409]
    assert database.users.options() == before


async def test_a_user_with_read_write_alone_serves_a_changed_schema_and_says_so(
    database: Database[Document], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    older = {"$jsonSchema": {"title": "sluice.users v0"}}
    database.create_collection("users", validator=older)
    async with serve("plain") as http:
        await ready(http)
        health = (await http.get("/health")).json()
        assert health["status"] == "degraded"
        assert "collection users: its schema isn't sluice.users v1" in health["reason"]
        assert "not authorized" in health["reason"]
        assert await twice(http) == [201, 409]
        await asyncio.sleep(1)
        assert len([record for record in caplog.records if "not authorized" in record.getMessage()]) == 1
        database.client.admin.command("grantRolesToUser", "plain", roles=["dbAdminAnyDatabase"])
        try:
            async with asyncio.timeout(20):
                while (await http.get("/health")).json()["reason"]:
                    await asyncio.sleep(0.1)
        finally:
            database.client.admin.command("revokeRolesFromUser", "plain", roles=["dbAdminAnyDatabase"])
    assert database.users.options()["validator"] == {"$jsonSchema": SCHEMA}


@pytest.mark.parametrize(
    ("command", "code"), [("collMod", 59), ("collMod", 13), ("collMod", 238), ("create", 238), ("create", 13)]
)
async def test_a_server_that_takes_no_schema_gets_no_duplicates(
    database: Database[Document], serve: Serve, command: str, code: int
) -> None:
    if command == "collMod":
        database.create_collection("users", validator={"$jsonSchema": {"title": "sluice.users v0"}})
    fail(database, command, code)
    for _ in range(2):  # the second time the collection is there
        async with serve(stats_cache_ms=0) as http:
            await ready(http)
            assert await twice(http) == [201, 409]
            if command == "collMod":
                health = (await http.get("/health")).json()
                assert (health["status"], "schema" in health["reason"]) == ("degraded", True)


async def test_no_write_before_the_unique_index_stands(
    database: Database[Document], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    database.create_collection("users", validator={"$jsonSchema": {"title": "sluice.users v0"}})
    user = {"email": "twice@example.org", "name": "Ada", "created_at": NOW, "updated_at": NOW, "version": 1}
    database.users.insert_many([dict(user), dict(user)])
    async with serve() as http:
        why = "collection users: the unique index can't be built (email): several documents have the same email"
        await assert_nothing_is_written(http, why)
        assert len((await http.get("/users")).json()["items"]) == 2
        await asyncio.sleep(1)
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert [line for line in said if "unique index" in line] == [f"connection pool not ready: {why}"]
        assert "twice@example.org" not in str(said)
        database.users.delete_one({})
        await ready(http)
        assert await twice(http) == [201, 409]


@pytest.mark.parametrize(("code", "index"), [(85, {"name": "email"}), (86, {"name": "email"})])
async def test_an_index_in_the_unique_ones_place_is_named(
    database: Database[Document], serve: Serve, code: int, index: Document
) -> None:
    database.create_collection("users", validator={"$jsonSchema": SCHEMA})
    keys = "mail" if code == 86 else "email"
    database.users.create_index(keys, **index)
    async with serve() as http:
        await assert_nothing_is_written(http, "an index can't be built (email): one of that name or key is there")


async def test_an_index_that_only_serves_speed_stops_nobody(database: Database[Document], serve: Serve) -> None:
    database.create_collection("users", validator={"$jsonSchema": SCHEMA})
    database.users.create_index("age", name="city")
    async with serve() as http:
        await ready(http)
        health = (await http.get("/health")).json()
        assert (health["status"], "can't be built" in health["reason"]) == ("degraded", True)
        assert await twice(http) == [201, 409]


async def ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (answer := await http.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.05)
    assert answer.json() == {"status": "ready"}


# Documents that are no users, in a collection that is ours


GOOD = {"email": "good@example.org", "name": "n", "age": 30, "city": None, "tags": [], "created_at": NOW,
        "updated_at": NOW, "version": Int64(1)}  # fmt: skip
ODD: list[Document] = [
    {"_id": 7, "login": "eve"},
    {"_id": "7"},
    {},
    {**GOOD, "age": "30"},
    {**GOOD, "age": [1, 99]},
    {**GOOD, "age": 30.5},
    {**GOOD, "created_at": "yesterday"},
    {**GOOD, "created_at": [NOW, NOW]},
    {**GOOD, "updated_at": DatetimeMS(1 << 60)},
    {**GOOD, "created_at": DatetimeMS(-(1 << 60))},
    {**GOOD, "name": None},
    {**GOOD, "name": {"first": "Ada"}},
    {**GOOD, "version": "1"},
    {**GOOD, "version": [1]},
    {**GOOD, "tags": None},
    {**GOOD, "email": 7},
    {**GOOD, "_id": {"a": 1}},
    {name: value for name, value in GOOD.items() if name != "created_at"},
]


@pytest.fixture
async def mixed(database: Database[Document], serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    """Every odd document, three users among them."""
    database.create_collection("users", validator={"$jsonSchema": SCHEMA})
    async with serve() as http:
        await ready(http)
        database.users.drop_indexes()
        users: list[Document] = [
            {**GOOD, "name": "a", "age": 1},
            {**GOOD, "name": "b", "age": None},
            {key: value for key, value in GOOD.items() if key not in ("age", "city", "tags")} | {"extra": 1},
        ]
        database.get_collection("users").insert_many(
            [*users[:1], *map(dict, ODD), *users[1:]], bypass_document_validation=True
        )
        yield http


async def list_of(http: httpx.AsyncClient, sort: str, limit: int) -> tuple[list[str], int]:
    """The names, and how many were left out."""
    names: list[str] = []
    unreadable, cursor = 0, None
    for _ in range(4):  # of three users
        after = f"&cursor={cursor}" if cursor else ""
        answer = await http.get(f"/users?sort={sort}&limit={limit}{after}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        names += [user["name"] for user in page["items"]]
        unreadable += page["unreadable"]
        cursor = page["next_cursor"]
        if cursor is None:
            return names, unreadable
    raise AssertionError(f"still going on: {names}")


async def test_a_list_leaves_out_what_are_no_users_and_counts_them(mixed: httpx.AsyncClient) -> None:
    for sort in ("created_at", "-created_at", "name", "-name", "age", "-age"):
        for limit in (1, 2, 100):
            names, unreadable = await list_of(mixed, sort, limit)
            assert sorted(names) == ["a", "b", "n"]
            assert unreadable == len(ODD) if limit == 100 else unreadable > 0


async def test_one_that_is_no_user_is_named_and_not_changed(
    mixed: httpx.AsyncClient, database: Database[Document], caplog: pytest.LogCaptureFixture
) -> None:
    odd = [found for found in database.users.find({}, {"_id": 1}) if isinstance(found["_id"], ObjectId)]
    refused = 0
    for key in (found["_id"] for found in odd):
        before = raw(database, key)
        read = await mixed.get(f"/users/{key}")
        if read.status_code == 200:
            continue
        refused += 1
        for answer in (
            read,
            await mixed.patch(f"/users/{key}", json={"age": 3}, headers={"If-Match": "*"}),
            await mixed.patch(f"/users/{key}", json={"age": 3}, headers={"If-Match": '"1"'}),
            await mixed.delete(f"/users/{key}", headers={"If-Match": '"7"'}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/document-unreadable"), answer.text
            assert f"document {key} of users doesn't fit: " in answer.json()["detail"]
        assert raw(database, key) == before
        said = [record.getMessage() for record in caplog.records if str(key) in record.getMessage()]
        assert len(said) == 1
        assert (await mixed.delete(f"/users/{key}")).status_code == 204
    assert refused == len(ODD) - 3
    assert "Traceback" not in caplog.text


def raw(database: Database[Document], key: ObjectId) -> Any:
    return database.get_collection("users", codec_options=CodecOptions(RawBSONDocument)).find_one({"_id": key})
