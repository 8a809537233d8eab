"""What every route has without saying so: HEAD, OPTIONS, a complete `Allow`; and what happens beside the routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Scope

from app.http.methods import METHODS
from app.main import create_app
from app.settings.model import Settings
from tests.app.conftest import Client

pytestmark = pytest.mark.asyncio

ANYONE = "/users/66f1a2b3c4d5e6f7a8b9c0d1"
SERVED = {
    "/": "GET, HEAD, OPTIONS",
    "/users": "GET, HEAD, OPTIONS, POST",
    "/users/bulk": "DELETE, GET, HEAD, OPTIONS, PATCH, POST",  # `/users/{id}` fits, too
    ANYONE: "DELETE, GET, HEAD, OPTIONS, PATCH",
    "/health": "GET, HEAD, OPTIONS",
    "/health/live": "GET, HEAD, OPTIONS",
    "/health/ready": "GET, HEAD, OPTIONS",
    "/connection-stats": "GET, HEAD, OPTIONS",
    "/metrics": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/redoc": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/included/7": "GET, HEAD, OPTIONS, PUT",
    "/mounted/here": "GET, HEAD, OPTIONS, POST",
    "/added": "GET, HEAD, OPTIONS",
}


@pytest.fixture
def app(settings: Callable[..., Settings]) -> FastAPI:
    """The service, and what somebody may have added to it."""
    away = "mongodb://127.0.0.1:1/?replicaSet=rs0"  # nothing listens on port 1
    app = create_app(settings(mongodb_url=away, server_selection_timeout_ms=50, api_key="schluessel"))

    @app.get("/added")
    async def added() -> str:
        return "added"

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def ticks() -> AsyncIterator[bytes]:
            while True:
                yield b"tick"
                await asyncio.sleep(0.01)

        return StreamingResponse(ticks())

    @app.head("/both")
    async def head() -> Response:
        return Response(headers={"X-Own": "head"})

    @app.get("/both")
    async def get() -> Response:
        return Response(headers={"X-Own": "get"})

    @app.options("/asked")
    async def options() -> PlainTextResponse:
        return PlainTextResponse("own")

    @app.api_route("/refuses", methods=["GET", "POST"], include_in_schema=False)
    async def refuses(request: Request) -> Response:
        return Response(status_code=405, headers={"Allow": "POST"})

    included = APIRouter(prefix="/included")

    @included.get("/{number}")
    @included.put("/{number}")
    async def number(number: int) -> int:
        return number

    app.include_router(included)

    mounted = FastAPI()
    mounted.add_middleware(CORSMiddleware, allow_origins=["https://mounted.example"])

    @mounted.get("/here")
    @mounted.post("/here")
    async def here() -> str:
        return "here"

    app.mount("/mounted", mounted)
    return app


@pytest_asyncio.fixture
async def http(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        yield http


@pytest.mark.parametrize("path", [*SERVED, "/nowhere", "/users/7", "/users/", "/both"])
async def test_head_is_get_without_a_body(http: httpx.AsyncClient, path: str) -> None:
    head, get = await http.head(path), await http.get(path)
    own = {"x-request-id", "server-timing", "x-own"}
    assert head.status_code == get.status_code
    assert head.content == b""
    lengths = {head.headers.pop("content-length", None), get.headers.pop("content-length", None)}
    assert len(lengths) == 1 or path in {"/metrics", "/connection-stats", "/health"}  # figures, new each time
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }


async def test_a_route_may_have_a_head_of_its_own(http: httpx.AsyncClient) -> None:
    assert (await http.head("/both")).headers["x-own"] == "head"


async def test_head_of_an_endless_answer_ends(http: httpx.AsyncClient) -> None:
    assert (await asyncio.wait_for(http.head("/endless"), 5)).status_code == 200


@pytest.mark.parametrize("path", SERVED)
async def test_options_needs_no_key_and_says_what_is_allowed(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.options(path)
    assert (answer.status_code, answer.content, answer.headers["allow"]) == (204, b"", SERVED[path])


async def test_options_of_ones_own_and_of_nothing(http: httpx.AsyncClient) -> None:
    assert (await http.options("/asked")).text == "own"
    assert (await http.options("/nowhere")).status_code == 404


async def test_a_mounted_application_answers_its_preflights_itself(http: httpx.AsyncClient) -> None:
    asked = {"Origin": "https://mounted.example", "Access-Control-Request-Method": "GET"}
    answer = await http.options("/mounted/here", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "https://mounted.example"


@pytest.mark.parametrize("path", [path for path in SERVED if not path.startswith("/mounted")])
async def test_a_method_is_refused_exactly_where_it_is_not_allowed(http: httpx.AsyncClient, path: str) -> None:
    for method in {*METHODS, "BREW"}:
        answer = await http.request(method, path)
        assert (answer.status_code == 405) == (method not in SERVED[path].split(", ")), method
        if answer.status_code == 405:
            assert answer.headers["allow"] == SERVED[path]
            assert answer.json()["type"] == "/problems/method-not-allowed"


async def test_a_route_may_refuse_a_method_itself(http: httpx.AsyncClient) -> None:
    assert (await http.get("/refuses")).headers["allow"] == "POST"


async def test_metrics_know_the_route_and_no_invented_method(http: httpx.AsyncClient) -> None:
    await http.head(ANYONE)
    await http.options(ANYONE)
    for number in range(3):
        await http.request(f"BREW{number}", "/users")
        await http.request(f"BREW{number}", "/users/")
        await http.get(f"/users/{number}/")
    lines = (await http.get("/metrics")).text.splitlines()
    counted = {line for line in lines if line.startswith("http_requests_total{")}
    assert counted == {
        'http_requests_total{handler="/users/{id}",method="HEAD",status="5xx"} 1.0',
        'http_requests_total{handler="/users/{id}",method="OPTIONS",status="2xx"} 1.0',
        'http_requests_total{handler="/users",method="_OTHER",status="4xx"} 3.0',
        'http_requests_total{handler="/users",method="_OTHER",status="3xx"} 3.0',
        'http_requests_total{handler="/users/{id}",method="GET",status="3xx"} 3.0',
    }


async def test_the_documentation_names_the_real_methods_only(app: FastAPI) -> None:
    assert {method for path in app.openapi()["paths"].values() for method in path} <= {
        "get", "post", "put", "patch", "delete", "head", "options"
    }  # fmt: skip
    assert app.openapi()["paths"]["/users"].keys() == {"get", "post"}


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/users/?limit=3&city=M%C3%BCnchen", "/users?limit=3&city=M%C3%BCnchen"),
        ("/health/live/", "/health/live"),
        ("/users/a%3Fb/", "/users/a%3Fb"),
        ("/users/100%25/", "/users/100%25"),
        ("/mounted", "/mounted/"),
    ],
)
async def test_a_redirect_names_no_host(http: httpx.AsyncClient, path: str, to: str) -> None:
    for headers in ({}, {"Host": "inner:8001", "X-Forwarded-Proto": "https"}):
        answer = await http.get(path, headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (307, to)
    assert (await http.post(path)).status_code == 307


async def test_a_redirect_never_leads_to_another_host(app: FastAPI, http: httpx.AsyncClient) -> None:
    @app.get("/{anything:path}/end/")
    async def anything() -> None: ...

    for path in ("//evil.example/end", "/\\evil.example/end"):
        answer = await http.get(httpx.URL("http://test").copy_with(raw_path=path.encode()))
        assert not answer.headers.get("location", "").startswith(("//", "/\\"))


async def test_the_root_leads_to_the_documentation(http: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        answer = await http.request(method, "/", follow_redirects=True)
        assert (answer.status_code, answer.url.path) == (200, "/docs")


async def test_a_root_of_ones_own_comes_first(app: FastAPI, http: httpx.AsyncClient) -> None:
    @app.post("/")
    async def mine() -> str:
        return "mine"

    assert (await http.post("/")).json() == "mine"
    assert (await http.get("/")).headers["allow"] == "OPTIONS, POST"


async def test_the_root_knows_its_prefix(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.root_path = "/prefix"
    assert (await http.get("/prefix/")).headers["location"] == "/prefix/docs"


async def test_without_origins_nothing_is_added_and_with_any_every_page_may_read(
    settings: Callable[..., Settings], client: Client
) -> None:
    asked = {"Origin": "https://anybody.example", "Access-Control-Request-Method": "GET"}
    for origins, layers in (("", 0), ("*", 1)):
        app = create_app(settings(mongodb_url="mongodb://127.0.0.1:1/", cors_origins=origins))
        assert sum(issubclass(layer.cls, CORSMiddleware) for layer in app.user_middleware) == layers  # type: ignore[arg-type]
        async with client(app) as http:
            for answer in (await http.options("/users", headers=asked), await http.get("/docs", headers=asked)):
                assert answer.headers.get_list("access-control-allow-origin") == ["*"] * layers


async def test_a_websocket_that_nobody_serves_is_refused(app: FastAPI) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    for path in ("/", "/users/", "/nowhere"):
        scope: Scope = {"type": "websocket", "path": path, "query_string": b"", "headers": [], "subprotocols": []}
        await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"] * 3
