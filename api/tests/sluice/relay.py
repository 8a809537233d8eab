"""Between a client and a member: lets the answer to a query arrive otherwise than the member has sent it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

HEADER = struct.Struct("<iiii")
"""Length, id, the id that it answers, opcode."""
QUERY = b"\x02find\x00"


class Relay:
    """Passes on what either side says; `change` gets the answer to the next query, whole, and gives what arrives
    instead, after which nothing more comes on that connection if it's less than was said."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._tasks: set[asyncio.Task[None]] = set()
        self.change: Callable[[bytes], bytes] | None = None
        self.changed = asyncio.Event()
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queries: set[int] = set()
        up_reader, up_writer = await asyncio.open_connection(self._host, int(self._port))
        for source, sink, back in ((reader, up_writer, False), (up_reader, writer, True)):
            task = asyncio.create_task(self._pass_on(source, sink, queries, back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, queries: set[int], back: bool
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                header = await source.readexactly(HEADER.size)
                length, number, answers, _ = HEADER.unpack(header)
                message = header + await source.readexactly(length - HEADER.size)
                if not back and QUERY in message[:64]:
                    queries.add(number)
                if back and answers in queries and self.change is not None:
                    message, self.change = self.change(message), None
                    self.changed.set()
                sink.write(message)
                await sink.drain()
        sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relay_to(address: str) -> AsyncIterator[Relay]:
    relay = Relay(address)
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0, limit=1 << 20)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
