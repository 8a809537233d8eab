"""What FastAPI's documentation says of applications holds for this one's routes and for a user's.

On a real replica set; each on the table of routes with its direct calls, on the table alone, on FastAPI's own router.
"""

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import pytest_asyncio
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
    WebSocket,
    sse,
)
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.routing import iter_route_contexts
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from pydantic import BaseModel

from app import main, users
from app.dependencies import SluiceDep
from app.http import direct, dispatch
from app.http.middleware import no_deadline
from app.main import create_app
from app.security import require_api_key
from app.serving.http_protocol import HttpProtocol
from app.settings.model import Settings
from app.users.model import User
from app.users.routes import get_users
from sluice import deadline
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client
from tests.app.connection import ask, receive, receive_all, served

WAYS = ("direct", "table", "fastapi")
NOBODY = "66f1a2b3c4d5e6f7a8b9c0d1"
KEY = {"X-API-Key": "schluessel"}
DEADLINE = 0.3
DEFAULT_PATIENCE = 35
"""Seconds that nginx waits for the next byte, by the defaults: 5 more than REQUEST_TIMEOUT_MS and TIMEOUT."""
MakeApp = Callable[..., FastAPI]


def go(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let applications that are made from now on give requests to their routes this way."""
    if way != "direct":
        monkeypatch.setattr(dispatch, "direct", lambda context: None)
    if way == "fastapi":
        monkeypatch.setattr(dispatch, "install", lambda app, checks: None)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    go(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def make_app(
    replica_set: ReplicaSet, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> MakeApp:
    """The service, made with these options of `FastAPI`."""
    database = f"test_{uuid.uuid4().hex[:8]}"

    def make(**options: Any) -> FastAPI:
        monkeypatch.setattr(main, "FastAPI", lambda **given: FastAPI(**given, **options))
        return create_app(
            settings(
                mongodb_url=replica_set.url,
                database_name=database,
                min_pool_size=0,
                api_key="schluessel",
                request_timeout_ms=DEADLINE * 1000,
                access_log="all",
            )
        )

    return make


@pytest.fixture
def app(way: str, make_app: MakeApp) -> FastAPI:
    return make_app()


@pytest_asyncio.fixture
async def http(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with running(app, client) as http:
        yield http


@asynccontextmanager
async def running(app: FastAPI, client: Client) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        async with asyncio.timeout(20):
            while not app.state.sluice.ready:
                await asyncio.sleep(0.05)
        yield http


async def created(http: httpx.AsyncClient) -> str:
    body = {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada"}
    answer = await http.post("/users", json=body, headers=KEY)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


# Dependencies


async def only_friends(friend: Annotated[str | None, Header()] = None) -> None:
    if friend != "yes":
        raise HTTPException(401, "friends only")


@pytest.mark.asyncio
async def test_the_applications_dependencies_protect_every_route(way: str, make_app: MakeApp, client: Client) -> None:
    app = make_app(dependencies=[Depends(only_friends)])
    one = f"/users/{NOBODY}"
    async with running(app, client) as http:
        for method, path, status in (
            ("GET", "/users", 200),
            ("GET", one, 404),
            ("PATCH", one, 428),
            ("DELETE", one, 404),
            ("GET", "/health/live", 200),
            ("GET", "/health/ready", 200),
            ("GET", "/health", 200),
            ("GET", "/connection-stats", 200),
            ("GET", "/metrics", 200),
            ("HEAD", "/users", 200),
        ):
            body = {"age": 3} if method == "PATCH" else None
            assert (await http.request(method, path, headers=KEY, json=body)).status_code == 401, path
            answer = await http.request(method, path, headers={"Friend": "yes", **KEY}, json=body)
            assert answer.status_code == status, path


@pytest.mark.asyncio
async def test_the_key_of_the_whole_application_is_asked_before_a_body_is_read(
    make_app: MakeApp, client: Client
) -> None:
    app = make_app(dependencies=[Depends(require_api_key)])

    @app.post("/mine")
    async def mine(body: dict[str, int]) -> int:
        return len(body)

    async with running(app, client) as http:
        for path in ("/mine", "/users"):
            for headers, status in (({}, 401), (KEY, 422)):
                asked = {"Content-Type": "application/json", **headers}
                assert (await http.post(path, content=b"{", headers=asked)).status_code == status
        assert (await http.get("/users")).status_code == 401
        assert (await http.get("/health/live")).status_code == 401


@pytest.mark.asyncio
async def test_overrides_replace_repository_and_security(app: FastAPI, http: httpx.AsyncClient) -> None:
    class Someone:
        async def get(self, user_id: object) -> User:
            return User.model_validate(
                {"id": NOBODY, "email": "o@x.org", "name": "Over", "version": 7, "created_at": 0, "updated_at": 0}
            )

        async def delete(self, user_id: object, versions: object) -> bool:
            return True

    app.dependency_overrides[get_users] = Someone
    answer = await http.get(f"/users/{NOBODY}")
    assert (answer.json()["name"], answer.headers["etag"]) == ("Over", '"7"')
    assert (await http.delete(f"/users/{NOBODY}")).status_code == 401
    app.dependency_overrides[require_api_key] = lambda: None
    assert (await http.delete(f"/users/{NOBODY}")).status_code == 204
    assert (await http.post("/users", json={})).status_code == 422
    app.dependency_overrides.clear()
    assert (await http.get(f"/users/{NOBODY}")).status_code == 404
    assert (await http.post("/users", json={})).status_code == 401


@pytest.mark.asyncio
async def test_routers_are_included_with_prefix_tags_dependencies_and_responses(
    way: str, app: FastAPI, http: httpx.AsyncClient
) -> None:
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer", dependencies=[Depends(only_friends)])

    @inner.get("/{number}")
    async def number(number: int, request: Request) -> dict[str, Any]:
        return {"number": number, "url": str(request.url_for("number", number=8))}

    outer.include_router(inner, prefix="/more", tags=["deep"])
    app.include_router(outer, prefix="/api", tags=["top"], responses={418: {"description": "Teapot"}})
    path, friend = "/api/outer/more/inner/7", {"Friend": "yes"}
    assert (await http.get(path)).status_code == 401
    url = "http://test/api/outer/more/inner/8"
    assert (await http.get(path, headers=friend)).json() == {"number": 7, "url": url}
    assert (await http.get("/api/outer/more/inner/x", headers=friend)).json()["errors"][0]["field"] == "path.number"
    assert (await http.head(path, headers=friend)).status_code == 200
    assert (await http.options(path)).headers["allow"] == "GET, HEAD, OPTIONS"
    answer = await http.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert (await http.get(f"{path}/")).headers["location"] == path
    operation = app.openapi()["paths"]["/api/outer/more/inner/{number}"]["get"]
    assert (operation["tags"], "418" in operation["responses"]) == (["top", "deep"], True)
    if way != "fastapi":  # which tells nobody the whole of it
        figures = (await http.get("/metrics")).text
        for method in ("GET", "HEAD", "OPTIONS", "PUT"):
            assert f'handler="/api/outer/more/inner/{{number}}",method="{method}"' in figures


@pytest.mark.asyncio
async def test_the_users_may_be_included_elsewhere(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.include_router(users.router, prefix="/v2")
    body = {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada"}
    where = (await http.post("/v2/users", json=body, headers=KEY)).headers["location"]
    assert where.startswith("/v2/users/")
    assert (await http.get(where)).json()["email"] == body["email"]


@pytest.mark.asyncio
async def test_applications_and_files_are_mounted(app: FastAPI, http: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "here.txt").write_text("here")
    sub, router = FastAPI(), APIRouter()
    sub.state = app.state  # a mounted application has a state of its own

    @sub.get("/sub/{number}")
    async def number(number: int, sluice: SluiceDep) -> str:
        return f"{number} {sluice.ready}"

    router.mount("/deep", sub)
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.mount("/mounted", sub)
    app.include_router(router, prefix="/in")
    assert (await http.get("/mounted/sub/3")).json() == "3 True"
    assert (await http.get("/mounted/nowhere")).status_code == 404
    assert (await http.get("/in/deep/sub/3")).json() == "3 True"
    assert (await http.put("/in/deep/sub/3")).status_code == 405
    assert (await http.options("/in/deep/sub/3")).headers["allow"] == "GET, HEAD, OPTIONS"
    assert (await http.get("/static/here.txt")).text == "here"
    assert (await http.head("/static/here.txt")).status_code == 200
    assert (await http.get(f"/users/{NOBODY}")).status_code == 404


@pytest.mark.asyncio
async def test_dependencies_with_yield_end_after_the_answer(app: FastAPI, http: httpx.AsyncClient) -> None:
    said: list[str] = []

    async def lent() -> AsyncIterator[str]:
        said.append("lent")
        try:
            yield "it"
        except KeyError:
            said.append("failed")
            raise HTTPException(409, "no such key") from None
        finally:
            said.append("returned")

    @app.get("/lent")
    async def use(it: Annotated[str, Depends(lent)], fail: bool = False) -> str:
        said.append("used")
        if fail:
            raise KeyError
        return it

    assert (await http.get("/lent")).json() == "it"
    assert said == ["lent", "used", "returned"]
    assert (await http.get("/lent?fail=1")).json()["type"] == "/problems/conflict"
    assert said[3:] == ["lent", "used", "failed", "returned"]


@pytest.mark.asyncio
async def test_a_dependency_is_asked_once(app: FastAPI, http: httpx.AsyncClient) -> None:
    asked: list[str] = []

    async def first() -> int:
        asked.append("first")
        return len(asked)

    async def second(one: Annotated[int, Depends(first)], response: Response) -> int:
        asked.append("second")
        response.headers["X-Second"] = "yes"
        response.status_code = 202
        return one + 1

    @app.get("/once", dependencies=[Depends(first)])
    async def once(one: Annotated[int, Depends(first)], two: Annotated[int, Depends(second)]) -> list[int]:
        return [one, two]

    answer = await http.get("/once")
    assert (answer.status_code, answer.headers["x-second"], answer.json()) == (202, "yes", [1, 2])
    assert asked == ["first", "second"]


@pytest.mark.asyncio
async def test_functions_that_block_run_in_threads(app: FastAPI, http: httpx.AsyncClient) -> None:
    def thread() -> str:
        return threading.current_thread().name

    @app.get("/thread")
    def blocking(other: Annotated[str, Depends(thread)]) -> list[str]:
        return [threading.current_thread().name, other]

    assert threading.main_thread().name not in (await http.get("/thread")).json()


# What comes in and goes out


@pytest.mark.asyncio
async def test_forms_and_files_are_read(app: FastAPI, http: httpx.AsyncClient) -> None:
    pytest.importorskip("python_multipart")  # which whoever wants forms installs, as FastAPI's documentation says

    @app.post("/form")
    async def form(name: Annotated[str, Form()]) -> str:
        return name

    @app.post("/upload")
    async def upload(file: UploadFile, note: Annotated[str, Form()], raw: Annotated[bytes, File()]) -> list[str]:
        return [file.filename or "", (await file.read()).decode(), note, raw.decode()]

    assert (await http.post("/form", data={"name": "Ada"})).json() == "Ada"
    files = {"file": ("a.txt", b"one"), "raw": ("b.txt", b"two")}
    assert (await http.post("/upload", data={"note": "n"}, files=files)).json() == ["a.txt", "one", "n", "two"]


@pytest.mark.asyncio
async def test_bodies_that_are_no_json_are_read_where_a_route_takes_them(app: FastAPI, http: httpx.AsyncClient) -> None:
    @app.post("/text")
    async def text(body: Annotated[str, Body(media_type="text/plain")]) -> str:
        return body

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    assert (await http.post("/text", content="hello", headers={"Content-Type": "text/plain"})).json() == "hello"
    assert (await http.post("/raw", content=b"123")).json() == 3


@pytest.mark.asyncio
async def test_exceptions_of_ones_own_have_handlers(app: FastAPI, http: httpx.AsyncClient) -> None:
    class NotThere(Exception): ...

    async def handle(request: Request, error: Exception) -> Response:
        return JSONResponse({"gone": request.url.path}, 410)

    app.add_exception_handler(NotThere, handle)

    async def fails() -> None:
        raise NotThere

    @app.get("/gone")
    async def gone() -> str:
        raise NotThere

    @app.get("/gone-before", dependencies=[Depends(fails)])
    async def gone_before() -> str:
        return "here"

    for path in ("/gone", "/gone-before"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()) == (410, {"gone": path})


@pytest.mark.asyncio
async def test_the_class_of_an_answer_may_be_another(app: FastAPI, http: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("filed")

    @app.get("/plain", response_class=PlainTextResponse)
    async def plain() -> str:
        return "plain"

    @app.get("/file", response_class=FileResponse)
    async def file() -> Path:
        return tmp_path / "file.txt"

    @app.get("/cookie")
    async def cookie(response: Response, seen: Annotated[str | None, Cookie()] = None) -> str | None:
        response.set_cookie("seen", "now")
        return seen

    answer = await http.get("/plain")
    assert (answer.text, answer.headers["content-type"]) == ("plain", "text/plain; charset=utf-8")
    assert (await http.get("/file")).text == "filed"
    assert (await http.get("/file", headers={"Range": "bytes=1-2"})).text == "il"
    answer = await http.get("/cookie", headers={"Cookie": "seen=before"})
    assert (answer.json(), answer.cookies["seen"]) == ("before", "now")


def test_websockets_are_served(app: FastAPI) -> None:
    @app.websocket("/ws/{name}")
    async def echo(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        await websocket.send_text(f"{name}: {await websocket.receive_text()}")
        await websocket.close()

    with TestClient(app) as http, http.websocket_connect("/ws/ada") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "ada: hello"


# Time


@pytest.mark.asyncio
async def test_background_tasks_take_their_own_time(
    app: FastAPI, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[object] = []

    async def later(sluice: SluiceDep, key: str) -> None:
        await asyncio.sleep(2 * DEADLINE)
        await sluice.collection("notes").insert_one({"_id": key})
        done.append(deadline.remaining())

    @app.post("/note/{key}")
    async def note(key: str, tasks: BackgroundTasks, sluice: SluiceDep) -> str:
        tasks.add_task(later, sluice, key)
        return key

    with caplog.at_level(logging.INFO, "app.observe.access_log"):
        assert (await http.post("/note/one")).status_code == 200
    async with asyncio.timeout(5):
        while not done:
            await asyncio.sleep(0.01)
    assert done == [None]
    assert await app.state.sluice.collection("notes").count_documents({"_id": "one"}) == 1
    (line,) = [record.getMessage() for record in caplog.records if "/note/one" in record.getMessage()]
    assert float(line.split(" in ")[1].split()[0]) < 2 * DEADLINE


@pytest.mark.asyncio
async def test_a_deadline_ends_when_the_answer_begins(app: FastAPI, http: httpx.AsyncClient) -> None:
    async def ticks() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(DEADLINE / 2)
            yield f"{deadline.remaining()};".encode()

    @app.get("/ticks")
    async def stream() -> StreamingResponse:
        return StreamingResponse(ticks())

    @app.get("/late")
    async def late() -> str:
        await asyncio.sleep(2 * DEADLINE)
        return "late"

    @app.get("/long", dependencies=[Depends(no_deadline)])
    async def long() -> str:
        await asyncio.sleep(2 * DEADLINE)
        return str(deadline.remaining())

    assert (await http.get("/ticks")).text == "None;" * 4
    seconds = REGISTRY.get_sample_value("http_request_duration_seconds_sum", {"method": "GET", "handler": "/ticks"})
    assert seconds is not None
    assert 0 < seconds < DEADLINE
    assert (await http.get("/late")).status_code == 504
    assert (await http.get("/long")).json() == "None"
    operation = app.openapi()["paths"]["/long"]["get"]
    assert "parameters" not in operation


@pytest.mark.asyncio
async def test_events_are_sent_as_they_come(app: FastAPI, http: httpx.AsyncClient) -> None:
    class Tick(BaseModel):
        number: int

    @app.get("/events", response_class=EventSourceResponse)
    async def events(sluice: SluiceDep) -> AsyncIterator[Tick]:
        for number in range(3):
            await asyncio.sleep(DEADLINE / 2)
            await sluice.collection("notes").find_one({})
            yield Tick(number=number)
        yield ServerSentEvent(event="end", raw_data="over")  # type: ignore[misc]

    async with served(app, HttpProtocol) as client:
        await ask(client, "/events", "Connection: close")
        first = await receive(client)
        assert b"over" not in first
        answer = first + await receive_all(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: text/event-stream" in head
    assert b"x-accel-buffering: no" in head
    assert b"server-timing: " in head
    for part in (b'data: {"number":0}', b'data: {"number":2}', b"event: end\ndata: over"):
        assert part in body


@pytest.mark.asyncio
async def test_an_idle_stream_of_events_gives_signs_of_life(
    app: FastAPI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 < sse._PING_INTERVAL < DEFAULT_PATIENCE, "nginx would take an idle stream for dead"
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)

    @app.get("/idle", response_class=EventSourceResponse)
    async def idle() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "never"

    async with served(app, HttpProtocol) as client:
        await ask(client, "/idle")
        received = b""
        while received.count(b": ping\n\n") < 2:
            received += await receive(client)
    assert (await http.head("/idle")).headers["content-type"].startswith("text/event-stream")


@pytest.mark.asyncio
async def test_a_stream_whose_client_has_gone_is_cancelled(app: FastAPI, http: httpx.AsyncClient) -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    @app.get("/endless")
    async def stream() -> StreamingResponse:
        return StreamingResponse(endless())

    async with served(app, HttpProtocol) as client:
        await ask(client, "/endless")
        assert b"200 OK" in await receive(client)
        assert not ended.is_set()
        client.close()
        await asyncio.wait_for(ended.wait(), 5)


@pytest.mark.parametrize("error", [RuntimeError("geheim"), HTTPException(404), TimeoutError()], ids=repr)
@pytest.mark.asyncio
async def test_a_stream_that_fails_ends_the_connection_and_is_logged_once(
    app: FastAPI, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"tick"
        raise error

    @app.get("/failing")
    async def stream() -> StreamingResponse:
        return StreamingResponse(failing())

    async with served(app, HttpProtocol, log_config=None) as client:
        await ask(client, "/failing")
        answer = await receive_all(client)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"tick" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


# Every way answers the same


def shape(answer: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    own = {b"server-timing"}
    return answer.status_code, [(k, v) for k, v in answer.headers.raw if k.lower() not in own], answer.content


class Filter(BaseModel):
    q: str
    limit: int = 3


def add_routes(app: FastAPI) -> None:
    async def both(
        a: Annotated[str, Header()], b: Annotated[str | None, Header(alias="X-B")] = None
    ) -> list[str | None]:
        return [a, b]

    @app.get("/p/{one}/{two:int}/{rest:path}")
    async def path(one: str, two: int, rest: str) -> list[Any]:
        return [one, two, rest]

    @app.get("/h")
    async def headers(
        ab: Annotated[list[Any], Depends(both)],
        many: Annotated[list[str] | None, Header()] = None,
        size: Annotated[int, Header()] = 4,
    ) -> list[Any]:
        return [*ab, many, size]

    @app.get("/q")
    async def query(filtered: Annotated[Filter, Query()]) -> Filter:
        return filtered

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, a: Annotated[str, Header()] = "none") -> str:
            return a

    unhashable = Unhashable()

    @app.get("/unhashable")
    async def asks(a: Annotated[str, Depends(unhashable)], again: Annotated[str, Depends(unhashable)]) -> list[str]:
        return [a, again]

    @app.get("/none", status_code=204)
    async def none(response: Response) -> None:
        response.headers["X-None"] = "yes"

    @app.get("/anything")
    async def anything():  # type: ignore[no-untyped-def]
        return {"any": "thing"}

    @app.get("/wrong")
    async def wrong() -> Filter:
        return {"limit": "x"}  # type: ignore[return-value]

    @app.get("/less", response_model_exclude_defaults=True)
    async def less() -> Filter:
        return Filter(q="a")


@pytest.mark.asyncio
async def test_every_way_answers_the_same_to_the_byte(
    make_app: MakeApp, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, list[tuple[Any, Any]]] = {}
    user = ""
    for way in WAYS:
        with monkeypatch.context() as patch:
            go(way, patch)
            app = make_app()
            add_routes(app)
            async with running(app, client) as http:
                user = user or await created(http)
                found = answers[way] = []
                for method, path, headers in requests(user):
                    answer = await http.request(
                        method,
                        path,
                        headers=[
                            (name.encode(), value.encode()) for name, value in [("X-Request-ID", "same"), *headers]
                        ],
                    )
                    found.append(((method, path, headers), shape(answer)))
    assert answers["direct"] == answers["table"] == answers["fastapi"]
    statuses = {answer[0] for _, answer in answers["direct"]}
    assert statuses == {200, 204, 304, 400, 401, 404, 405, 422, 500, 307}


def requests(user: str) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    key = ("X-API-Key", "schluessel")
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        for path in ("/users", f"/users/{user}", f"/users/{NOBODY}", "/users/me", "/users/bulk", f"/users/{user}/"):
            yield method, path, []
    for condition in ('"1"', "*", "x", 'W/"1"', '"2"', "é"):
        yield "GET", f"/users/{user}", [("If-None-Match", condition)]
        yield "GET", f"/users/{user}", [("If-None-Match", '"9"'), ("If-None-Match", condition)]
        yield "DELETE", f"/users/{NOBODY}", [("If-Match", condition), key]
        yield "DELETE", f"/users/{NOBODY}", [("If-Match", condition)]
    yield "DELETE", "/users/x", [("Authorization", "Bearer schluessel")]
    for query in ("limit=1", "limit=1&limit=2", "limit=0", "nothing=1", "email=x", "cursor=x", "sort=-name&tag=a"):
        yield "GET", f"/users?{query}", []
    for path in (
        "/p/a/1/b/c",
        "/p/a/x/b",
        "/p/a%2Fb/1/",
        "/none",
        "/unhashable",
        "/anything",
        "/wrong",
        "/less",
        "/health/live",
    ):
        yield "GET", path, []
    for sent in ([], [("A", "1")], [("A", "1"), ("A", "2"), ("X-B", "3"), ("Many", "4"), ("Many", "5"), ("Size", "6")]):
        yield "GET", "/h", sent
        yield "GET", "/h", [*sent, ("Size", "x")]
    for query in ("q=a", "q=a&limit=9", "limit=9", "q=a&limit=x", ""):
        yield "GET", f"/q?{query}", []


def test_the_busiest_routes_are_called_directly(make_app: MakeApp) -> None:
    app = make_app()
    add_routes(app)
    called = {
        f"{method} {context.path}"
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
        if direct.direct(context) is not None
    }
    assert {"GET /users/{id}", "GET /users", "DELETE /users/{id}", "GET /health/live", "GET /h", "GET /q"} <= called
    assert not called & {"POST /users", "PATCH /users/{id}", "GET /docs"}


@pytest.mark.parametrize("path", ["/{user_id}", "/late"])
def test_a_route_that_another_hides_is_named_at_startup(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    app, copied = make_app(), APIRouter(prefix="/users")

    @copied.get(path)
    async def read_order(request: Request) -> str:
        return str(request.path_params)

    @copied.get("/{user_id}/orders")
    @copied.put("/late")
    async def not_hidden() -> None: ...

    app.include_router(copied)
    with TestClient(app):
        pass
    lines = [record.getMessage() for record in caplog.records if record.name == "app.http.dispatch"]
    (line,) = [line for line in lines if "never called" in line]
    assert line.startswith(
        f"GET /users{path} of tests.app.test_fastapi_ways is never called: /users/{{id}} of app.users"
    )
