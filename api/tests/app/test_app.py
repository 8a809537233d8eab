"""The whole application while MongoDB is away, and what needs no MongoDB."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from starlette.types import Message

from app.main import create_app
from app.settings.model import Settings
from tests.app.conftest import Client

pytestmark = pytest.mark.asyncio

ANYONE = "66f1a2b3c4d5e6f7a8b9c0d1"
AWAY = "mongodb://127.0.0.1:1/?replicaSet=rs0"  # nothing listens on port 1
KEY = {"X-API-Key": "schluessel"}
both_drivers = pytest.mark.parametrize("app", ["pymongo", "motor"], indirect=True)


@pytest.fixture
def app(request: pytest.FixtureRequest, settings: Callable[..., Settings]) -> FastAPI:
    return create_app(
        settings(
            mongodb_url=AWAY,
            mongodb_driver=getattr(request, "param", "pymongo"),
            server_selection_timeout_ms=100,
            request_timeout_ms=2_000,
            api_key="schluessel",
        )
    )


@pytest_asyncio.fixture
async def http(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        yield http


@both_drivers
async def test_the_worker_lives_and_is_not_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health/live")).json() == {"status": "alive"}
    ready = await http.get("/health/ready")
    assert (ready.status_code, ready.json()["type"]) == (503, "/problems/not-ready")
    health = await http.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unavailable")


@both_drivers
async def test_users_are_unavailable_within_the_budget(http: httpx.AsyncClient) -> None:
    began = time.monotonic()
    answer = await http.get(f"/users/{ANYONE}")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert time.monotonic() - began < 2


async def test_statistics_keep_their_shape(http: httpx.AsyncClient) -> None:
    body = (await http.get("/connection-stats")).json()
    assert body["success"] is True
    stats = body["connection_pool_stats"]
    assert {name: stats[name] for name in list(stats)[:5]} == {
        "current_connections": 0,
        "available_connections": 0,
        "total_created": 0,
        "active_connections": 0,
        "pool_config": {"max_pool_size": 100, "min_pool_size": 10, "max_idle_time_ms": 30000},
    }
    assert [worker["worker"] for worker in stats["workers"]] == [0]


async def test_metrics_are_grouped_by_route(http: httpx.AsyncClient) -> None:
    for n in range(3):
        await http.get(f"/users/{n}")
    await http.get("/nowhere")
    await http.post("/users/bulk")
    await http.put("/users/bulk")
    await http.get("/healthcare")  # a path that isn't below /health
    text = (await http.get("/metrics")).text
    assert 'http_requests_total{handler="none",method="GET",status="4xx"} 2.0' in text
    assert 'http_requests_total{handler="/users/{id}",method="GET",status="4xx"} 3.0' in text
    assert 'http_requests_total{handler="/users/bulk",method="POST",status="4xx"} 1.0' in text
    assert 'method="PUT",status="4xx"} 1.0' in text
    assert 'handler="none"' in text
    assert 'handler="/metrics"' not in text
    assert 'sluice_worker_ready{worker="0"} 0.0' in text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "Ada"}, "body.email"),
        ({"email": "nobody", "name": "Ada"}, "body.email"),
        ({"email": "a@example.org", "name": " "}, "body.name"),
        ({"email": "a@example.org", "name": "Ada", "age": "36"}, "body.age"),
        ({"email": "a@example.org", "name": "Ada", "age": 36.5}, "body.age"),
        ({"email": "a@example.org", "name": "Ada", "age": "36.0"}, "body.age"),
        ({"email": "a@example.org", "name": "Ada", "age": True}, "body.age"),
        ({"email": "a@example.org", "name": "Ada", "age": 10**30}, "body.age"),
        ({"email": "a@example.org", "name": "\ud800"}, "body.name"),
        ({"email": "a@example.org", "name": {"$ne": ""}}, "body.name"),
        ({"email": "a@example.org", "name": "Ada", "tags": ["x"] * 21}, "body.tags"),
        ({"email": "a@example.org", "name": "Ada", "admin": True}, "body.admin"),
        ({"email": "a@example.org", "name": "Ada", "\ud800": 1}, "body"),
    ],
)
async def test_a_strict_model_names_the_field(http: httpx.AsyncClient, body: object, field: str) -> None:
    headers = {"X-API-Key": "schluessel", "Content-Type": "application/json"}
    answer = await http.post("/users", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/invalid"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "sort=email", "cursor=x", "min_age=-1", "unknown=1", "min_age[$gt]=1"]
)
async def test_a_senseless_listing_is_refused(http: httpx.AsyncClient, query: str) -> None:
    assert (await http.get(f"/users?{query}")).status_code == 422


async def test_an_id_that_is_none_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/users/me")).status_code == 422


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": "schlüssel"}, {"Authorization": "Basic schluessel"}]
)
async def test_what_changes_something_needs_the_key(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    one = f"/users/{ANYONE}"
    for method, path in (("POST", "/users"), ("POST", "/users/bulk"), ("PATCH", one), ("DELETE", one)):
        answer = await http.request(method, path, headers=raw, json={} if method != "DELETE" else None)
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthorized")
        assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]"])
async def test_without_the_key_nobody_learns_what_is_wrong_with_a_body(http: httpx.AsyncClient, body: bytes) -> None:
    for method, path in (("POST", "/users"), ("POST", "/users/bulk"), ("PATCH", f"/users/{ANYONE}")):
        for key, statuses in (("", {401}), ("wrong", {401}), ("schluessel", {400, 422})):
            headers = {"Content-Type": "application/json", "X-API-Key": key}
            answer = await http.request(method, path, headers=headers, content=body)
            assert answer.status_code in statuses


async def test_without_the_key_no_body_is_read(app: FastAPI) -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    scope = {"type": "http", "method": "POST", "path": "/users", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    assert sent[0]["status"] == 401


async def test_routes_that_change_something_are_documented_to_need_the_key(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert ("security" in operation) == (method != "get"), (method, path)


async def test_the_key_may_be_a_bearer_token(http: httpx.AsyncClient) -> None:
    answer = await http.delete(f"/users/{ANYONE}", headers={"Authorization": "Bearer schluessel"})
    assert answer.status_code == 503


async def test_a_change_needs_if_match(http: httpx.AsyncClient) -> None:
    answer = await http.patch(f"/users/{ANYONE}", json={"age": 3}, headers={"X-API-Key": "schluessel"})
    assert answer.status_code == 428


async def test_every_problem_is_documented(app: FastAPI) -> None:
    schema = app.openapi()
    assert "ProblemDetails" in schema["components"]["schemas"]
    assert "/metrics" not in schema["paths"]
    content = schema["paths"]["/users/{id}"]["get"]["responses"]["404"]["content"]
    assert list(content) == ["application/problem+json"]


JSON = b'{"email": "ada@example.org", "name": "Ada", "age": "none"}'  # no user: 422 says that it was read


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=utf-8",
        "application/json ; a=b; c=d",
        "application/merge-patch+json",
        "application/vnd.api.v1+json; a=b",
    ],
)
async def test_json_is_read_whatever_it_is_called(http: httpx.AsyncClient, media_type: str) -> None:
    for method, path in (("POST", "/users"), ("POST", "/users/bulk"), ("PATCH", f"/users/{ANYONE}")):
        answer = await http.request(method, path, content=JSON, headers={"Content-Type": media_type} | KEY)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid"), path


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": "application/a/b+json"},
        {"Content-Type": "application/xml; application/json"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "identity, br"},
    ],
    ids=str,
)
async def test_a_body_of_another_kind_is_refused(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/users"), ("POST", "/users/bulk"), ("PATCH", f"/users/{ANYONE}")):
        answer = await http.request(method, path, content=JSON, headers=headers | KEY)
        assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type"), path
        if "Content-Encoding" in headers:
            assert answer.headers["accept-encoding"] == "identity"
        else:
            assert answer.headers[f"accept-{method}"] == "application/json"
        assert (await http.request(method, path, content=JSON, headers=headers)).status_code == 401


async def test_a_body_that_is_missing_is_not_of_another_kind(http: httpx.AsyncClient) -> None:
    answer = await http.post("/users", headers=KEY)
    assert (answer.status_code, answer.json()["errors"][0]["type"]) == (422, "missing")
