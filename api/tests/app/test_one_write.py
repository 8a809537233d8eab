"""Answers over real sockets: whole, in one piece where they are small, and no faster than the caller reads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.serving.one_write import OneWriteProtocol
from tests.app.connection import ask, receive, receive_all, served

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CHUNK = b"x" * 16_384
CHUNKS = 4_000


async def small(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": scope["path"][1:6].encode()})


class Large:
    """A long answer whose writer never waits for anything but its caller."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(CHUNKS):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b""})


async def test_head_and_body_come_in_one_piece_on_one_connection() -> None:
    async with served(small, OneWriteProtocol) as client:
        for path in ("first", "other", "third"):
            await ask(client, f"/{path}")
            head, body = (await receive(client)).split(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert body == path.encode()


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served(small, OneWriteProtocol) as client:
        for path in ("first", "other"):
            await ask(client, f"/{path}")
        await ask(client, "/third", "Connection: close")
        answers = (await receive_all(client)).split(b"HTTP/1.1 200")[1:]
        assert [answer[-5:] for answer in answers] == [b"first", b"other", b"third"]


async def test_the_last_answer_of_a_connection_is_whole() -> None:
    async with served(small, OneWriteProtocol) as client:
        await ask(client, "/first", "Connection: close")
        assert (await receive_all(client)).endswith(b"\r\n\r\nfirst")


@pytest.mark.parametrize("protocol", [OneWriteProtocol, HttpToolsProtocol])
async def test_a_long_answer_waits_for_its_caller(protocol: type[HttpToolsProtocol]) -> None:
    large = Large()
    async with served(large, protocol) as client:
        await ask(client, "/", "Connection: close")
        head = await receive(client)
        assert head.startswith(b"HTTP/1.1 200")
        sent = -1
        while sent < large.sent:  # until the buffers on the way are full
            sent = large.sent
            for _ in range(10_000):
                await asyncio.sleep(0)
        assert sent < CHUNKS / 2
        rest = await receive_all(client)
        assert (head + rest).count(b"x") == CHUNKS * len(CHUNK)
        assert large.sent == CHUNKS
