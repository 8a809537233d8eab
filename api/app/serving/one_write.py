"""uvicorn's HTTP protocol, with an answer's head and body in one system call and one packet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_GATHERED = 65_536


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn writes head and body one after the other, and uvloop sends each at once: an eighth of a point read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(_Gathering(cast("asyncio.Transport", transport)))  # uvloop's is none by its class


class _Gathering(asyncio.Transport):
    """A transport that sends together what one step of the event loop writes: at that step's end, or when it's much."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes | bytearray | memoryview[int]] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._written:
            self._loop.call_soon(self._flush)
        self._written.append(data)
        self._size += len(data)
        if self._size >= MOST_GATHERED:  # the transport must see it to pause whoever writes
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return self._size + self._transport.get_write_buffer_size()

    def _flush(self) -> None:
        written, self._written, self._size = self._written, [], 0
        if written:
            self._transport.write(b"".join(written))

    # The rest that a server's protocol asks of it.

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()
