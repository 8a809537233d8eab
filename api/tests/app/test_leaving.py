"""A worker that leaves, on real sockets: whoever has a connection to it, or is just sending, gets an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import uvicorn

from app.serving.http_protocol import HttpProtocol
from app.serving.leaving import PatientServer
from app.serving.succession import Board
from tests.app.connection import ask, receive, receive_all

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

KEEP_ALIVE = 1


class Gate:
    """Answers `/`; an answer to `/slow` begins when it's let, and one to `/parts` ends when it is."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.set()
        if scope["path"] == "/slow":
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"so", "more_body": True})
        if scope["path"] == "/parts":
            await self.go.wait()
        await send({"type": "http.response.body", "body": b"it"})


class Worker:
    """A server that serves until it is told to leave."""

    def __init__(self, gate: Gate, listening: socket.socket, *, keep_alive: int, graceful: int) -> None:
        config = uvicorn.Config(
            gate, http=HttpProtocol, lifespan="off", log_config=None,
            timeout_keep_alive=keep_alive, timeout_graceful_shutdown=graceful,
        )  # fmt: skip
        self.board = Board()
        self.server = PatientServer(config, self.board.take())
        self.address = listening.getsockname()
        self.task = asyncio.create_task(self.server.serve(sockets=[listening]))

    async def leave(self) -> None:
        self.server.should_exit = True
        while not self.server.server_state.leaving:
            await asyncio.sleep(0.01)

    async def connect(self) -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, self.address)
        return client


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def worker(gate: Gate) -> AsyncIterator[Worker]:
    async with serving(gate, keep_alive=KEEP_ALIVE, graceful=20) as worker:
        yield worker


@contextlib.asynccontextmanager
async def serving(gate: Gate, *, keep_alive: int, graceful: int) -> AsyncIterator[Worker]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = Worker(gate, listening, keep_alive=keep_alive, graceful=graceful)
        while not worker.server.started:
            await asyncio.sleep(0.01)
        yield worker
        worker.server.should_exit = worker.server.force_exit = True
        await worker.task


def says_close(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"soit"
    return b"connection: close" in head


async def receive_late(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1_024), 20)


async def whole(client: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(b"soit"):
        answer += await receive(client)
    return answer


async def test_an_idle_connection_gets_one_more_answer_which_is_its_last(worker: Worker) -> None:
    with contextlib.closing(await worker.connect()) as client:
        await ask(client, "/")
        assert not says_close(await whole(client))
        await worker.leave()
        await ask(client, "/")
        assert says_close(await receive_all(client))
    await asyncio.wait_for(worker.task, KEEP_ALIVE)  # nobody is left: it ends early


async def test_what_is_under_way_is_answered_and_told(worker: Worker, gate: Gate) -> None:
    with contextlib.closing(await worker.connect()) as client:
        await ask(client, "/slow")
        await gate.asked.wait()
        await worker.leave()
        gate.go.set()
        assert says_close(await receive_all(client))


async def test_an_answer_that_has_begun_ends_no_connection_that_it_did_not_say_would_end(
    worker: Worker, gate: Gate
) -> None:
    with contextlib.closing(await worker.connect()) as client:
        await ask(client, "/parts")
        await gate.asked.wait()
        answer = await receive(client)
        await worker.leave()
        gate.go.set()
        while not answer.endswith(b"soit"):
            answer += await receive(client)
        assert not says_close(answer)
        await ask(client, "/")
        assert says_close(await receive_all(client))


async def test_new_connections_are_served_while_old_ones_are_open(worker: Worker) -> None:
    with contextlib.closing(await worker.connect()) as idle:
        await ask(idle, "/")
        await whole(idle)
        await worker.leave()
        with contextlib.closing(await worker.connect()) as client:
            await ask(client, "/")
            assert says_close(await receive_all(client))


async def test_it_goes_once_idle_connections_are_as_old_as_they_may_be(worker: Worker) -> None:
    with contextlib.closing(await worker.connect()) as used, contextlib.closing(await worker.connect()) as unused:
        await ask(used, "/")
        await whole(used)
        started = time.monotonic()
        await worker.leave()
        assert await receive(used) == await receive(unused) == b""
        assert time.monotonic() - started >= KEEP_ALIVE - 0.1
        await asyncio.wait_for(worker.task, 5)


async def test_a_connection_that_was_just_made_is_not_closed_before_its_first_request(worker: Worker) -> None:
    with contextlib.closing(await worker.connect()) as idle:
        await ask(idle, "/")
        await whole(idle)
        await worker.leave()
        with contextlib.closing(await worker.connect()) as client:
            while worker.server.servers[0].is_serving():
                await asyncio.sleep(0.01)
            await ask(client, "/")
            assert says_close(await receive_all(client))


async def test_connections_that_may_be_idle_for_longer_than_a_leave_lasts_are_closed_at_its_end(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(gate, keep_alive=60, graceful=6) as worker:
        with contextlib.closing(await worker.connect()) as idle, contextlib.closing(await worker.connect()) as unused:
            await ask(idle, "/")
            await whole(idle)
            started = time.monotonic()
            await worker.leave()
            assert [await receive_late(client) for client in (idle, unused)] == [b"", b""]
            await worker.task
    assert 2.9 < time.monotonic() - started < 5  # half of what it has, and a moment
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_leave_by_own_choice_lasts_as_long_as_connections_may_be_idle(gate: Gate) -> None:
    async with serving(gate, keep_alive=4, graceful=4) as worker:
        with contextlib.closing(await worker.connect()) as idle:
            await ask(idle, "/")
            await whole(idle)
            started = time.monotonic()
            worker.server.limit_max_requests = 1
            assert await receive_late(idle) == b""
            assert time.monotonic() - started > 3.8  # half of what it would have if it were told to
            await worker.task


async def test_a_leave_by_own_choice_is_cut_short_by_an_order(gate: Gate) -> None:
    async with serving(gate, keep_alive=60, graceful=4) as worker:
        with contextlib.closing(await worker.connect()) as idle:
            await ask(idle, "/")
            await whole(idle)
            worker.server.limit_max_requests = 1
            while not worker.server.server_state.leaving:
                await asyncio.sleep(0.01)
            started = time.monotonic()
            worker.server.should_exit = True
            assert await receive_late(idle) == b""
            assert 1.9 < time.monotonic() - started < 4
            await worker.task


async def test_answers_tell_the_time_of_day_while_it_leaves(gate: Gate) -> None:
    async with serving(gate, keep_alive=60, graceful=60) as worker:
        with contextlib.closing(await worker.connect()) as idle:
            await ask(idle, "/")
            await whole(idle)
            await worker.leave()
            dates: set[bytes] = set()
            async with asyncio.timeout(10):
                while len(dates) < 3:
                    with contextlib.closing(await worker.connect()) as client:
                        await ask(client, "/")
                        dates |= set(re.findall(rb"date: (.*)\r\n", await receive_all(client)))
