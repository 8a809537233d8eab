"""The API's document as clients see it: names, types to the last field, linters, and a client generated from it."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.sse import EventSourceResponse
from fastapi.testclient import TestClient
from pymongo.server_type import SERVER_TYPE

from app.http.headers import sends
from app.http.problems import documented
from app.main import create_app
from app.settings.model import Settings
from sluice import Role
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client

HERE = Path(__file__).parent
LINTERS = ("@redocly/cli@2.77.0", "@stoplight/spectral-cli@6.16.3")
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")


@pytest.fixture
def document(settings: Callable[..., Settings]) -> dict[str, Any]:
    return create_app(settings()).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in methods.items())


def test_operations_are_named_by_tag_and_function(document: dict[str, Any]) -> None:
    tags = ("users", "health", "statistics")  # another resource adds its own
    names = {operation["operationId"] for _, operation in operations(document)}
    assert {name for name in names if name.startswith(tags)} == {
        "users_create", "users_create_many", "users_read", "users_list", "users_update", "users_delete",
        "health_live", "health_ready", "health_status", "statistics_pools",
    }  # fmt: skip
    assert {tag for _, operation in operations(document) for tag in operation["tags"]} == {
        tag["name"] for tag in document["tags"]
    }
    assert document["info"]["license"] == {"name": "MIT", "identifier": "MIT"}


def test_routes_of_ones_own_are_described_alike(settings: Callable[..., Settings]) -> None:
    app = create_app(settings())
    router = APIRouter(prefix="/tickets", tags=["tickets"])

    @router.get("/{number}", responses={200: sends("ETag"), **documented(404, 503)})
    async def read(number: int) -> str:
        return str(number)

    @router.get("/{number}/events", response_class=EventSourceResponse)
    async def events(number: int) -> AsyncIterator[int]:
        yield number

    app.include_router(router)
    operation = app.openapi()["paths"]["/tickets/{number}/events"]["get"]
    assert operation["responses"]["200"]["content"] == {"text/event-stream": {"schema": {"type": "string"}}}
    operation = app.openapi()["paths"]["/tickets/{number}"]["get"]
    assert operation["operationId"] == "tickets_read"
    headers = {status: list(answer["headers"]) for status, answer in operation["responses"].items()}
    assert headers == {
        "200": ["ETag", "X-Request-ID"],
        "400": ["X-Request-ID"],
        **{status: ["X-Request-ID"] for status in ("404", "408", "413", "414", "422", "431", "500")},
        "503": ["Retry-After", "X-Request-ID"],
        "504": ["X-Request-ID"],
    }
    for status in headers.keys() - {"200"}:  # the framework's own description of 422 isn't what is sent
        assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    assert not {"HTTPValidationError", "ValidationError"} & app.openapi()["components"]["schemas"].keys()


def test_a_header_that_nobody_described_is_named() -> None:
    with pytest.raises(ValueError, match=r"^Etag: not described in app\.http\.headers\.HEADERS$"):
        sends("ETag", "Etag")


def test_operations_with_the_same_name_are_named_at_startup(
    settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings(mongodb_url="mongodb://127.0.0.1:1/?replicaSet=rs0"))  # where nothing listens
    copied = APIRouter(prefix="/people", tags=["users"])

    @copied.get("/{id}")
    async def read(id: str) -> str:  # noqa: A002
        return id

    @copied.get("/{id}/photo", include_in_schema=False)
    async def update(id: str) -> str:  # noqa: A002
        return id

    app.include_router(copied)
    with TestClient(app):
        pass
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.http.dispatch"]
    assert line.startswith("generated clients can't tell GET /users/{id} and GET /people/{id} apart")
    assert "since each is named users_read" in line


def untyped(schema: Any, where: str) -> Iterator[str]:
    """Where a schema lets anything pass."""
    if schema in (True, {}) or not isinstance(schema, dict):
        yield where
        return
    kinds = ("type", "$ref", "anyOf", "allOf", "oneOf", "const", "enum")
    if not any(kind in schema for kind in kinds):
        yield where
    if schema.get("type") == "object" and not {"properties", "additionalProperties"} & schema.keys():
        yield where
    if schema.get("type") == "array" and "items" not in schema:
        yield where
    for name, part in schema.get("properties", {}).items():
        yield from untyped(part, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(part := schema.get(key), dict):
            yield from untyped(part, f"{where}.{key}")
    for part in schema.get("anyOf", []):
        yield from untyped(part, where)


def test_everything_is_typed_to_the_last_field(document: dict[str, Any]) -> None:
    found = [at for name, schema in document["components"]["schemas"].items() for at in untyped(schema, name)]
    for where, operation in operations(document):
        bodies = [("request", operation.get("requestBody", {})), *operation["responses"].items()]
        for name, body in bodies:
            for content in body.get("content", {}).values():
                found += untyped(content.get("schema"), f"{where} {name}")
        for parameter in operation.get("parameters", []):
            found += untyped(parameter["schema"], f"{where} {parameter['name']}")
    assert found == []


def test_what_is_always_there_is_required(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("User", "UserPage", "UserBulkItem", "UserBulkOutcome", "Health", "MemberHealth", "MemberPools"):
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]), name
    parameters = {each["name"]: each for each in document["paths"]["/users/{id}"]["patch"]["parameters"]}
    assert (parameters["If-Match"]["required"], parameters["If-Match"]["schema"]["type"]) == (True, "string")
    parameters = {each["name"]: each for each in document["paths"]["/users/{id}"]["delete"]["parameters"]}
    assert not parameters["If-Match"]["required"]


def test_the_role_of_a_member_is_one_that_the_driver_knows(document: dict[str, Any]) -> None:
    assert set(get_args(Role)) == set(SERVER_TYPE._fields)
    assert document["components"]["schemas"]["MemberHealth"]["properties"]["role"]["enum"] == list(get_args(Role))


def test_the_headers_that_are_sent_are_described(document: dict[str, Any]) -> None:
    def headers(operation: dict[str, Any], status: int) -> set[str]:
        return set(operation["responses"][str(status)]["headers"]) - {"X-Request-ID"}

    users, user = document["paths"]["/users"], document["paths"]["/users/{id}"]
    assert headers(users["post"], 201) == {"ETag", "Location"}
    assert headers(users["post"], 401) == {"WWW-Authenticate"}
    assert headers(users["get"], 503) == {"Retry-After"}
    assert headers(user["get"], 200) == headers(user["get"], 304) == headers(user["patch"], 412) == {"ETag"}
    referred = {part.partition('"')[0] for part in json.dumps(document).split("#/components/headers/")[1:]}
    assert referred == document["components"]["headers"].keys()


@pytest.fixture(scope="module")
def linters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of their commands."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here, which brings the linters of the API's document")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    environment = {**os.environ, "npm_config_cache": str(folder / "cache")}
    done = subprocess.run([*command, *LINTERS], env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 and any(word in done.stderr for word in OFFLINE):
        pytest.skip("npm's registry can't be reached, which has the linters of the API's document")
    assert done.returncode == 0, done.stderr
    return folder / "node_modules" / ".bin"


@pytest.mark.timeout(330)
@pytest.mark.parametrize(
    "command",
    [
        ("redocly", "lint", "--config", HERE / "redocly.yaml"),
        ("spectral", "lint", "--fail-severity", "warn", "--ruleset", HERE / "spectral.yaml"),
    ],
    ids=lambda command: command[0],
)
def test_linters_find_nothing(
    linters: Path, document: dict[str, Any], tmp_path: Path, command: tuple[str | Path, ...]
) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    name, *arguments = map(str, command)
    environment = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "CI": "true"}
    done = subprocess.run(
        [str(linters / name), *arguments, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Warning was generated" not in said, said  # redocly's


# A client that is generated from it


@pytest.fixture
def app(replica_set: ReplicaSet, driver: str, settings: Callable[..., Settings]) -> FastAPI:
    database = f"test_{uuid.uuid4().hex[:8]}"
    return create_app(settings(mongodb_url=replica_set.url, mongodb_driver=driver, database_name=database))


@pytest.fixture
async def http(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        async with asyncio.timeout(20):
            while not app.state.sluice.ready:
                await asyncio.sleep(0.05)
        yield http


async def test_what_is_answered_is_documented(app: FastAPI, http: httpx.AsyncClient) -> None:
    paths, in_no_time = app.openapi()["paths"], {"X-Request-Timeout-Ms": "0"}
    stored = await app.state.sluice.collection("users").insert_one({"name": 3}, bypass_document_validation=True)
    unreadable = f"/users/{stored.inserted_id}"
    answers = {
        ("get", "/users"): [await http.get("/users", headers=in_no_time)],
        ("post", "/users"): [await http.post("/users", json={}, headers=in_no_time)],
        ("post", "/users/bulk"): [await http.post("/users/bulk", json={}, headers=in_no_time)],
        ("get", "/users/{id}"): [await http.get(unreadable), await http.get(unreadable, headers=in_no_time)],
        ("patch", "/users/{id}"): [
            await http.patch(unreadable, json={"age": 3}),
            await http.patch(unreadable, json={"age": 3}, headers={"If-Match": '"1"'}),
        ],
        ("delete", "/users/{id}"): [await http.delete(unreadable, headers={"If-Match": '"1"'})],
        ("get", "/connection-stats"): [await http.get("/connection-stats", headers=in_no_time)],
        ("get", "/health"): [await http.get("/health", headers=in_no_time)],  # which has no deadline
    }
    statuses = {answer.status_code for found in answers.values() for answer in found}
    assert statuses == {200, 400, 409, 428}
    for (method, path), found in answers.items():
        for answer in found:
            documented = paths[path][method]["responses"].get(str(answer.status_code), {})
            assert answer.headers["content-type"] in documented.get("content", {}), (method, path, answer.status_code)


async def test_a_generated_client_creates_lists_changes_and_deletes(
    http: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, name = tmp_path / "openapi.json", f"generated_{uuid.uuid4().hex}"
    path.write_text((await http.get("/openapi.json")).text)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    where = ["--path", str(path), "--output-path", str(tmp_path / name)]
    generator = await asyncio.create_subprocess_exec(*command, *where, stdout=PIPE, stderr=STDOUT)
    said, _ = await generator.communicate()
    assert generator.returncode == 0, said.decode()
    monkeypatch.syspath_prepend(tmp_path)
    models = importlib.import_module(f"{name}.models")
    users = {
        function: importlib.import_module(f"{name}.api.users.users_{function}").asyncio_detailed
        for function in ("create", "create_many", "read", "list", "update", "delete")
    }
    generated = importlib.import_module(name).Client("http://test").set_async_httpx_client(http)

    created = await users["create"](client=generated, body=models.NewUser(email="ada@example.org", name="Ada", age=36))
    assert (created.status_code, created.parsed.name, created.parsed.city) == (HTTPStatus.CREATED, "Ada", None)
    assert created.headers["Location"] == f"/users/{created.parsed.id}"
    again = await users["create"](client=generated, body=models.NewUser(email="ada@example.org", name="Ada"))
    assert (again.status_code, again.parsed.type_) == (HTTPStatus.CONFLICT, "/problems/duplicate")
    two = [models.NewUser(email="b@example.org", name="B"), models.NewUser(email="no", name="C")]
    outcome = (await users["create_many"](client=generated, body=models.UserBulk(users=two))).parsed
    assert [(item.index, item.status) for item in outcome.items] == [(0, 201), (1, 422)]
    page = (await users["list"](client=generated, sort=models.UsersListSort.NAME_DESCENDING)).parsed
    assert [user.name for user in page.items] == ["B", "Ada"]
    change = models.UserChange(city="Paris")
    changed = await users["update"](created.parsed.id, client=generated, body=change, if_match=created.headers["ETag"])
    assert (changed.parsed.city, changed.parsed.version) == ("Paris", 2)
    stale = await users["update"](created.parsed.id, client=generated, body=change, if_match=created.headers["ETag"])
    assert (stale.status_code, stale.headers["ETag"]) == (HTTPStatus.PRECONDITION_FAILED, '"2"')
    deleted = await users["delete"](created.parsed.id, client=generated)
    assert deleted.status_code == HTTPStatus.NO_CONTENT
    missing = await users["read"](created.parsed.id, client=generated)
    assert (missing.status_code, missing.parsed.type_) == (HTTPStatus.NOT_FOUND, "/problems/not-found")
