"""What Gunicorn's worker adds to uvicorn's."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import uvloop

from app.serving.worker import LISTENERS, repeated

CONNECTIONS = 20 * LISTENERS


class Counting(asyncio.Protocol):
    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1


async def steps_until_all_are_accepted() -> int:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS))
        for each in repeated([listening]):
            server = await loop.create_server(Counting, sock=each, backlog=CONNECTIONS)
            stack.callback(server.close)
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        steps = 0
        while Counting.made < CONNECTIONS:
            assert steps < 2 * CONNECTIONS
            steps += 1
            await asyncio.sleep(0)
        return steps


def test_a_busy_loop_accepts_several_connections_in_each_step() -> None:
    assert uvloop.run(steps_until_all_are_accepted()) <= 2 * CONNECTIONS / LISTENERS
