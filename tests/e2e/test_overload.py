"""More requests than can be in progress: the rest is refused at once, by nginx."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import httpx
from whole_stack import Stack, until

from app.settings.model import Settings

PER_WORKER = Settings.model_fields["max_requests_in_progress"].default
SPARE = 20
"""More than are let in, since one may be given up while the others come."""
UNFINISHED = b"POST /users HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"


def test_requests_beyond_the_limit_are_refused_at_once_and_what_operators_ask_never(stack: Stack) -> None:
    address = ("127.0.0.1", stack.layout.http.number)
    assert len(stack.wait_for_workers()) == 2  # earlier tests may have ended some
    with ExitStack() as open_sockets:
        for _ in range(2 * PER_WORKER + SPARE):
            open_sockets.enter_context(socket.create_connection(address)).sendall(UNFINISHED)
        until(lambda: stack.http.get("/users", params={"limit": 1}).status_code == 503, 5)
        refused = stack.http.get("/users", params={"limit": 1})
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/busy"
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert refused.headers["retry-after"] == "1"
        assert refused.elapsed.total_seconds() < 1
        assert stack.http.post("/users", json={}).json()["type"] == "/problems/busy"
        for path in ("/health/ready", "/connection-stats"):
            assert stack.http.get(path).status_code == 200
    until(lambda: stack.http.get("/users", params={"limit": 1}).status_code == 200, 5)


def test_an_api_that_is_away_fills_no_log(stack: Stack) -> None:
    log = stack.layout.logs / "nginx.out"
    before = len(log.read_text().splitlines())
    stack.control("stop", "api")
    try:
        with httpx.Client(base_url=stack.url) as client:
            assert {client.get("/users").status_code for _ in range(400)} == {503}
    finally:
        stack.control("start", "api")
    stack.wait_for_workers()
    lines = log.read_text().splitlines()
    assert sum("connect() failed" in line for line in lines) >= 20  # some of them maybe from the start
    assert len(lines) - before < 150
