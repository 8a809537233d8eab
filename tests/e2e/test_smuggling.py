"""nginx and the API see the same requests, whatever is sent: nothing reaches the API that nginx doesn't know of."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_stack import Stack, until

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /users/last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PADDING = b"\r\n" * 300_000
"""So much that the body comes to the API in many reads."""

WATCHING = re.compile("/(health|connection-stats|metrics)")
"""What others ask for meanwhile."""
ANSWERED = re.compile(r"request=(\S+) .* - ([A-Z-]+) (/.*) \([^)]*\) answered \d+ in")


def get(headers: bytes, body: bytes = b"") -> bytes:
    return b"GET /users?limit=1 HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + body + LAST


def sized(body: bytes, headers: bytes = b"") -> bytes:
    return get(headers + b"Content-Length: %d\r\n" % len(body), body)


def chunked(body: bytes, headers: bytes = b"") -> bytes:
    return get(headers + b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


UPGRADE = b"Upgrade: x\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TWICE = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(SMUGGLED)
MESSAGES = {
    "upgrade": sized(PADDING + SMUGGLED, UPGRADE),
    "upgrade, chunked": chunked(PADDING + SMUGGLED, UPGRADE),
    "h2c": sized(PADDING + SMUGGLED, H2C),
    "websocket": sized(PADDING + SMUGGLED, WEBSOCKET),
    "upgrade without a body": get(WEBSOCKET),
    "a body of a GET": sized(SMUGGLED),
    "a body that nobody reads": b"DELETE /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
    + SMUGGLED
    + LAST,
    "a body that is too large": b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + SMUGGLED,
    "HTTP/2 at once": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /users?limit=1\r\n",
    "HTTP/1.0": b"GET /users?limit=1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST,
    "length and chunks": get(TWICE, b"0\r\n\r\n" + SMUGGLED),
    "length twice": get(b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
    "length with sign": get(b"Content-Length: +%d\r\n" % len(SMUGGLED), SMUGGLED),
    "blank before colon": get(b"Content-Length : %d\r\n" % len(SMUGGLED), SMUGGLED),
    "underscore": get(b"Content_Length: %d\r\n" % len(SMUGGLED), SMUGGLED.replace(b"smuggled", b"health/live")),
    "unknown encoding": get(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "two encodings": get(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunked twice": get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
    "bare line feed": get(b"A: b\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "folded": get(b"A: b\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "zero byte": get(b"A: \0\r\n"),
    "control character": get(b"A: \1\r\n"),
    "chunk extension": get(b"Transfer-Encoding: chunked\r\n", b'3;a="b\r\n"\r\nabc\r\n0\r\n\r\n'),
    "chunk ended by a line feed": get(b"Transfer-Encoding: chunked\r\n", b"3\nabc\n0\n\n"),
    "trailer": get(b"Transfer-Encoding: chunked\r\n", b"0\r\nContent-Length: 5\r\nUpgrade: x\r\n\r\n"),
    "expectation": sized(SMUGGLED, b"Expect: 100-continue\r\n"),
    "hop by hop": get(b"Connection: X-Request-ID, Host, close\r\n"),
    "whole address": b"GET http://other/users?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n" + LAST,
    "raw UTF-8": "GET /users?city=München HTTP/1.1\r\nHost: x\r\n\r\n".encode() + LAST,
    "unknown method": b"BREW /users HTTP/1.1\r\nHost: x\r\n\r\n" + LAST,
    "line break in an address": b"GET /x%0d%0a%0d%0aGET%20/smuggled HTTP/1.1\r\nHost: x\r\n\r\n" + LAST,
    "empty lines first": b"\r\n\r\n" + LAST,
}


@pytest.fixture(scope="module")
def logged(stack: Stack) -> Iterator[Stack]:
    """The stack, with every request in the API's log."""
    driver = stack.stats()["driver"]
    stack.up("--driver", driver, ACCESS_LOG="all")
    stack.wait_for_workers()
    yield stack
    stack.up("--driver", driver)
    stack.wait_for_workers()


def answer(port: int, message: bytes) -> bytes:
    """All that comes back until the connection is closed from the other side."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(message)
            while piece := connection.recv(1 << 16):
                received += piece
                if len(message) < len(PADDING) and b" 413 " in received:  # nginx waits for the rest, and drops it
                    break
        except ConnectionError:  # refused before it was sent whole
            pass
    return received


def test_the_api_serves_what_nginx_has_passed_on_and_nothing_else(logged: Stack) -> None:
    nginx_log, api_log = Tail(logged.layout.logs / "nginx-access.log"), Tail(logged.api_log)

    def passed_on() -> Counter[tuple[str, ...]]:
        refused = re.findall(r"request=(\S+) .* A message was refused", api_log.text())
        entries = [json.loads(line) for line in nginx_log.text().splitlines()]
        return Counter(
            (entry["request_id"], entry["method"])
            for entry in entries
            if entry["upstream"] not in ("", "-")
            and entry["request_id"] not in refused
            and not WATCHING.match(entry["path"])
        )

    def served() -> Counter[tuple[str, ...]]:
        found = filter(None, map(ANSWERED.search, api_log.text().splitlines()))
        return Counter(line.group(1, 2) for line in found if not WATCHING.match(line[3]))

    def the_same() -> bool:
        assert served() == passed_on()
        return len(served()) > len(MESSAGES)

    answers = {name: answer(logged.layout.http.number, message) for name, message in MESSAGES.items()}
    assert [name for name, received in answers.items() if not received] == []
    until(the_same)
    assert " - GET /smuggled (" not in api_log.text()


@pytest.mark.parametrize("past_nginx", [False, True])
@pytest.mark.parametrize("wish", [UPGRADE + b"Connection: upgrade\r\n", H2C, WEBSOCKET], ids=["x", "h2c", "websocket"])
def test_an_honest_write_that_would_like_an_upgrade_is_created(logged: Stack, wish: bytes, past_nginx: bool) -> None:
    port = logged.layout.api.number if past_nginx else logged.layout.http.number
    email = f"{uuid.uuid4().hex}@example.org"
    body = json.dumps({"email": email, "name": "Ada"}).encode()
    head = b"POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    received = answer(port, head + wish + b"\r\n" + body + LAST)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"201", b"422"]
    assert email.encode() in received


class Tail:
    """What a log gets from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._from = path.stat().st_size

    def text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._from)
            return file.read().decode()
