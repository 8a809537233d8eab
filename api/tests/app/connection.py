"""uvicorn's protocols on a real socket, and what can be said to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@contextlib.asynccontextmanager
async def served(app: ASGIApp, protocol: type[HttpToolsProtocol], **options: Any) -> AsyncIterator[socket.socket]:
    """A connection to the application by uvicorn's protocol, with these options of its own."""
    config = uvicorn.Config(app, http=protocol, log_level="error", **options)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1")
    async with server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.setblocking(False)
            await loop.sock_connect(client, server.sockets[0].getsockname())
            yield client
        for connection in tuple(state.connections):
            connection.transport.abort()


async def ask(client: socket.socket, path: str, *headers: str) -> None:
    lines = [f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]
    await asyncio.get_running_loop().sock_sendall(client, "\r\n".join(lines).encode())


async def receive(client: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1 << 20), 5)


async def receive_all(client: socket.socket) -> bytes:
    received = bytearray()
    while piece := await receive(client):
        received += piece
    return bytes(received)


async def say(client: socket.socket, *pieces: bytes) -> None:
    """Send the pieces, each in a packet of its own that the server has read before the next one comes."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        await asyncio.get_running_loop().sock_sendall(client, piece)
        for _ in range(10):
            await asyncio.sleep(0)
