"""What happens around a request: ids, traces, deadlines, size limits, errors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from pymongo.errors import ServerSelectionTimeoutError

from app.http import errors, middleware
from app.http.middleware import BodyLimit, Context, Deadline, Problems
from app.observe.access_log import AccessLog
from sluice import deadline
from tests.app.conftest import Client

pytestmark = pytest.mark.asyncio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(BodyLimit, limit=1000)
    app.add_middleware(Deadline, seconds=0.3)
    app.add_middleware(Problems)
    app.add_middleware(Context, log_access=AccessLog("all").write)
    errors.install(app)

    @app.get("/hello/{name}")
    async def hello(name: str) -> str:
        return name

    @app.get("/budget")
    async def budget() -> float | None:
        return deadline.remaining()

    @app.get("/health/slow")
    async def unlimited() -> float | None:
        return deadline.remaining()

    @app.get("/healthcare")
    @app.get("/health-insurance")
    @app.get("/metrics2")
    async def limited() -> float | None:
        return deadline.remaining()

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(5)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("geheim")

    @app.get("/away")
    async def away() -> None:
        raise ServerSelectionTimeoutError("nobody there")

    @app.post("/echo")
    async def echo(body: Annotated[dict[str, Any], Body()]) -> int:
        return len(str(body))

    return app


async def test_a_request_gets_an_id_and_says_where_its_time_went(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        answer = await http.get("/hello/you")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert re.fullmatch(r"queue;dur=\d+\.\d, db;dur=\d+\.\d, handler;dur=\d+\.\d", answer.headers["server-timing"])


async def test_a_sane_request_id_is_kept_and_another_replaced(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        kept = await http.get("/hello/you", headers={"X-Request-ID": "abc-123"})
        replaced = await http.get("/hello/you", headers={"X-Request-ID": "a b\tc"})
        too_long = await http.get("/hello/you", headers={"X-Request-ID": "a" * 129})
    assert kept.headers["x-request-id"] == "abc-123"
    assert re.fullmatch("[0-9a-f]{32}", replaced.headers["x-request-id"])
    assert re.fullmatch("[0-9a-f]{32}", too_long.headers["x-request-id"])


async def test_a_trace_goes_on_under_a_new_parent(app: FastAPI, client: Client) -> None:
    parent = "00f067aa0ba902b7"
    async with client(app) as http:
        answer = await http.get("/hello/you", headers={"traceparent": f"00-{TRACE}-{parent}-01"})
    continued = re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-01", answer.headers["traceparent"])
    assert continued is not None
    assert continued[1] != parent


@pytest.mark.parametrize(
    "traceparent",
    [
        b"nonsense",
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        f"00-{TRACE}-0000000000000000-01".encode(),
        f"ff-{TRACE}-00f067aa0ba902b7-01".encode(),
        f"00-{TRACE}-00f067aa0ba902b7-01-more".encode(),
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01".encode(),
    ],
)
async def test_a_malformed_trace_is_not_followed(traceparent: bytes) -> None:
    assert middleware.follow(traceparent) is None


async def test_a_later_version_of_a_trace_is_followed() -> None:
    assert middleware.follow(f"01-{TRACE}-00f067aa0ba902b7-01-more".encode()) is not None


async def test_a_request_that_takes_too_long_is_cut_short(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        answer = await asyncio.wait_for(http.get("/slow"), 1)
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == "/problems/deadline-exceeded"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "retry-after" not in answer.headers


async def test_a_caller_may_ask_for_less_time_but_not_more(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        less = (await http.get("/budget", headers={"X-Request-Timeout-Ms": "100"})).json()
        more = (await http.get("/budget", headers={"X-Request-Timeout-Ms": "100000"})).json()
    assert 0 < less <= 0.1
    assert 0.1 < more <= 0.3


@pytest.mark.parametrize("wish", ["0", "-5", "1.5", "soon", "", "9" * 12])
async def test_a_senseless_wish_for_time_is_refused(app: FastAPI, client: Client, wish: str) -> None:
    async with client(app) as http:
        answer = await http.get("/budget", headers={"X-Request-Timeout-Ms": wish})
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/bad-request"


async def test_health_has_no_deadline(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        assert (await http.get("/health/slow")).json() is None


@pytest.mark.parametrize("path", ["/healthcare", "/health-insurance", "/metrics2"])
async def test_a_path_that_only_begins_like_it_has_one(app: FastAPI, client: Client, path: str) -> None:
    async with client(app) as http:
        assert 0 < (await http.get(path)).json() <= 0.3


async def test_a_body_that_announces_too_much_is_refused_unread(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        answer = await http.post("/echo", json={"a": "x" * 2000})
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/content-too-large"
    assert answer.headers["connection"] == "close"


async def test_a_chunked_body_is_refused_when_it_is_too_long(app: FastAPI, client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"a": "'
        for _ in range(100):
            yield b"x" * 100

    async with client(app) as http:
        answer = await http.post("/echo", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("encoding", ["gzip, chunked", "gzip", "identity", "x"])
async def test_chunks_of_something_else_are_refused(app: FastAPI, client: Client, encoding: str) -> None:
    async with client(app) as http:
        headers = {"Content-Type": "application/json", "Transfer-Encoding": encoding}
        answers = [await http.post("/echo", content=b"{}", headers=headers), await http.get("/budget", headers=headers)]
    for answer in answers:
        assert (answer.status_code, answer.json()["type"]) == (501, "/problems/not-implemented")
        assert answer.headers["connection"] == "close"


async def test_a_chunked_body_within_the_limit_is_read(app: FastAPI, client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"a": '
        yield b"1}"

    async with client(app) as http:
        answer = await http.post("/echo", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 200


async def test_an_unexpected_error_is_a_500_that_tells_nothing(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        answer = await http.get("/broken")
    assert answer.status_code == 500
    assert "geheim" not in answer.text


async def test_a_driver_error_is_answered_by_the_table(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        answer = await http.get("/away")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["instance"] == "/away"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/echo", 405)])
async def test_the_frameworks_errors_are_problems_too(
    app: FastAPI, client: Client, method: str, path: str, status: int
) -> None:
    async with client(app) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status == answer.json()["status"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b'{"a": 1}x', b"7"])
async def test_a_body_that_is_no_json_is_a_problem(client: Client, body: bytes, app: FastAPI) -> None:
    app.user_middleware = [layer for layer in app.user_middleware if layer.cls != BodyLimit]  # type: ignore[comparison-overlap]
    async with client(app) as http:
        answer = await http.post("/echo", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_cancelled_request_is_not_answered(app: FastAPI, client: Client) -> None:
    async with client(app) as http:
        request = asyncio.create_task(http.get("/slow"))
        await asyncio.sleep(0.05)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
