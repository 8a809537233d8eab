"""What the protocol makes of messages that HTTP parsers read differently: each request is served once, or none is."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.http.middleware import Context, Deadline, Problems
from app.observe.access_log import AccessLog
from app.serving.http_protocol import MOST_HEAD, HttpProtocol
from tests.app.connection import receive_all, say, served

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

LAST = b"GET /last HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n"


class Seen:
    """An application that tells what it was asked, and answers the body that came with it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.headers: dict[bytes, bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.requests.append((scope["method"], scope["path"], body))
        self.headers = dict(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def problem(answer: bytes) -> dict[str, Any]:
    """The problem that is this answer and nothing else; the connection was closed after it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    found: dict[str, Any] = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % found["status"])
    assert f"x-request-id: {found['request_id']}".encode() in head
    return found


UPGRADES = {
    "anything": b"Connection: Upgrade\r\nUpgrade: x\r\n",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": b"Connection: keep-alive, upgrade\r\nUPGRADE: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "several": b"Upgrade: a\r\nConnection: upgrade\r\nUpgrade: b\r\nX-Empty:\r\n",
    "without a wish": b"Upgrade: x\r\n",
}


@pytest.mark.parametrize("split", [None, 1, 30, -1, -20])
@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
async def test_a_request_to_be_upgraded_is_served_as_if_it_were_not(upgrade: bytes, split: int | None) -> None:
    seen = Seen()
    head = b"POST /users?a=b HTTP/1.1\r\nHost: here\r\n" + upgrade
    message = head + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
    pieces = [message] if split is None else [message[:split], message[split:]]
    async with served(seen, HttpProtocol) as client:
        await say(client, *pieces, LAST)
        answers = await receive_all(client)
    assert seen.requests == [("POST", "/users", SMUGGLED), ("GET", "/last", b"")]
    assert answers.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
async def test_a_chunked_body_stays_with_its_request(upgrade: bytes) -> None:
    seen = Seen()
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    async with served(seen, HttpProtocol) as client:
        head = b"POST /users HTTP/1.1\r\nHost: here\r\n" + upgrade + b"Transfer-Encoding: chunked\r\n\r\n"
        await say(client, head + chunks + head, chunks + LAST)
        await receive_all(client)
    assert seen.requests == [("POST", "/users", SMUGGLED)] * 2 + [("GET", "/last", b"")]


async def test_a_thousand_upgrades_in_one_packet_are_as_many_requests() -> None:
    seen = Seen()
    async with served(seen, HttpProtocol) as client:
        await say(client, b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" * 1000 + LAST)
        await receive_all(client)
    assert len(seen.requests) == 1001


async def test_the_last_request_of_a_connection_may_ask_for_an_upgrade() -> None:
    seen = Seen()
    async with served(seen, HttpProtocol) as client:
        await say(client, b"GET /a HTTP/1.1\r\nConnection: upgrade, close\r\nUpgrade: x\r\n\r\n" + SMUGGLED)
        answer = await receive_all(client)
    assert seen.requests == [("GET", "/a", b"")]
    assert b"upgrade" not in seen.headers
    assert b"connection: close" in answer


async def test_under_plain_uvicorn_such_a_connection_ends() -> None:
    seen, go_on = Seen(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        seen.requests.append((scope["method"], scope["path"], b""))
        await go_on.wait()
        await seen(scope, receive, send)

    async with served(Context(slow, AccessLog("off").write), HttpToolsProtocol) as client:
        head = b"POST /users HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 100\r\n\r\n"
        await say(client, head, SMUGGLED)
        go_on.set()
        answer = await receive_all(client)
    assert {path for _, path, _ in seen.requests} == {"/users"}
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


def post(headers: bytes, body: bytes = b"3\r\nabc\r\n0\r\n\r\n") -> bytes:
    return b"POST /users HTTP/1.1\r\nHost: here\r\nX-Request-ID: mine\r\n" + headers + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"
REFUSED = {
    "length twice": (post(b"Content-Length: 3\r\nContent-Length: 3\r\n"), 400),
    "length and chunks": (post(b"Content-Length: 3\r\n" + CHUNKED), 400),
    "chunks and length": (post(CHUNKED + b"Content-Length: 3\r\n"), 400),
    "length with sign": (post(b"Content-Length: +3\r\n"), 400),
    "length list": (post(b"Content-Length: 3, 3\r\n"), 400),
    "length empty": (post(b"Content-Length:\r\n"), 400),
    "length too large": (post(b"Content-Length: 99999999999999999999\r\n"), 400),
    "blank before colon": (post(b"Transfer-Encoding : chunked\r\n"), 400),
    "chunked is not the last": (post(b"Transfer-Encoding: chunked, identity\r\n"), 400),
    "not quite chunked": (post(b"Transfer-Encoding: xchunked\r\n"), 400),
    "odd white space": (post(b"Transfer-Encoding: \x0bchunked\r\n"), 400),
    "folded header": (post(b"A: b\r\n Transfer-Encoding: chunked\r\n"), 400),
    "bare line feed": (post(b"A: b\nTransfer-Encoding: chunked\r\n"), 400),
    "bare carriage return": (post(b"A: b\rTransfer-Encoding: chunked\r\n"), 400),
    "zero byte": (post(b"A: \x00\r\n"), 400),
    "no name": (post(b": x\r\n"), 400),
    "chunk size with prefix": (post(CHUNKED, b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size negative": (post(CHUNKED, b"-3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size too large": (post(CHUNKED, b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk with a bare line feed": (post(CHUNKED, b"3;a\nabc\r\n0\r\n\r\n"), 400),
    "chunk longer than said": (post(CHUNKED, b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    "address in UTF-8": ("GET /users?city=München HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n".encode(), 400),
    "address without path": (b"GET http://here HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n", 400),
    "HTTP/9.9": (b"GET / HTTP/9.9\r\nX-Request-ID: mine\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "unknown method": (b"FOO /users HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n", 501),
    "CONNECT": (b"CONNECT here:80 HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n", 501),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_understood_is_refused_as_a_problem_and_nothing_behind_it_is_read(case: str) -> None:
    message, status = REFUSED[case]
    seen = Seen()
    async with served(seen, HttpProtocol) as client:
        await say(client, message + SMUGGLED, SMUGGLED)
        found = problem(await receive_all(client))
    assert found["status"] == status
    assert found["request_id"] == "mine" or b"mine" not in message
    assert seen.requests == []


async def test_a_request_before_one_that_is_refused_gets_its_own_answer() -> None:
    seen = Seen()
    async with served(seen, HttpProtocol) as client:
        await say(client, post(b"Content-Length: 3\r\n", b"abc") + b"FOO / HTTP/1.1\r\n\r\n" + SMUGGLED)
        answer = await receive_all(client)
    assert seen.requests == [("POST", "/users", b"abc")]
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"]
    assert answer.endswith(b"\r\n\r\nabc")


async def test_fields_behind_a_body_are_no_headers() -> None:
    seen = Seen()
    async with served(seen, HttpProtocol) as client:
        await say(client, post(CHUNKED, b"3\r\nabc\r\n0\r\nX-API-Key: secret\r\n\r\n") + LAST)
        await receive_all(client)
        assert len(seen.requests) == 2
    trailing = Seen()
    async with served(trailing, HttpProtocol) as client:
        closing = post(CHUNKED + b"Connection: close\r\n", b"3\r\nabc\r\n0\r\nX-API-Key: secret\r\n\r\n")
        await say(client, closing)
        await receive_all(client)
    assert trailing.requests == [("POST", "/users", b"abc")]
    assert b"x-api-key" not in trailing.headers


async def test_headers_without_end_are_refused() -> None:
    seen = Seen()
    async with served(seen, HttpProtocol) as client:
        await say(client, b"GET / HTTP/1.1\r\nA: ", b"x" * (MOST_HEAD // 2), b"x" * (MOST_HEAD // 2))
        found = problem(await receive_all(client))
    assert (found["status"], found["type"]) == (431, "/problems/headers-too-large")


async def test_a_request_beyond_the_limit_of_a_worker_is_a_problem() -> None:
    seen = Seen()
    async with served(seen, HttpProtocol, limit_concurrency=1) as client:
        await say(client, b"GET / HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n")
        answer = await receive_all(client)
    found = problem(answer)
    assert (found["status"], found["type"], found["request_id"]) == (503, "/problems/busy", "mine")
    assert b"retry-after: 1" in answer
    assert seen.requests == []


async def test_fields_behind_a_body_are_not_kept() -> None:
    most = 0

    class Watched(HttpProtocol):
        def data_received(self, data: bytes) -> None:
            nonlocal most
            super().data_received(data)
            most = max(most, len(self.headers))

    seen = Seen()
    async with served(seen, Watched) as client:
        head = b"POST /users HTTP/1.1\r\nHost: here\r\n" + CHUNKED + b"\r\n2\r\nhi\r\n0\r\n"
        await say(client, head, *[b"a: b\r\n" * 100] * 20, b"\r\n" + LAST)
        await receive_all(client)
    assert seen.requests == [("POST", "/users", b"hi"), ("GET", "/last", b"")]
    assert most == 0


async def test_whoever_hangs_up_is_not_worked_for() -> None:
    started, ended = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        except BaseException as error:
            ended.set_result(error)
            raise

    app = Context(Problems(Deadline(work, seconds=60)), AccessLog("off").write)
    async with served(app, HttpProtocol) as client:
        await say(client, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await started.wait()
        client.close()
        assert isinstance(await asyncio.wait_for(ended, 10), asyncio.CancelledError)
