"""A collection's changes as they happen, on either driver.

The driver's change stream keeps a connection for as long as the server waits for the next change: nearly always, so
that as many of them as a pool has connections would leave none. Here the server is asked again and again and waits for
nothing: between two questions a stream has no connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar

from pymongo.errors import AutoReconnect

from sluice.errors import QueueFull, QueueTimeout

PATIENCE = 120.0
"""Seconds that MongoDB may be away."""
Token: TypeAlias = Mapping[str, Any]
Result = TypeVar("Result")


class ChangeStream(Protocol):
    """What both drivers' have."""

    @property
    def alive(self) -> bool: ...

    @property
    def resume_token(self) -> Mapping[str, Any] | None: ...

    def try_next(self) -> Awaitable[dict[str, Any] | None]: ...

    def close(self) -> Awaitable[None]: ...


class Changes:
    """`async with` opens it, `async for` gives each change as MongoDB describes it; see `Sluice.watch`.

    An election interrupts it no longer than it lasts, and so does any loss of MongoDB up to `PATIENCE` seconds; a full
    pool delays changes. Whatever else the driver raises ends it, and so does the end of the collection.
    """

    def __init__(self, open_stream: Callable[[Token | None], Awaitable[ChangeStream]], pause: float) -> None:
        """`open_stream` opens one behind this token, or where it's to begin."""
        self._open = open_stream
        self._pause = pause
        self._stream: ChangeStream | None = None
        self._token: Token | None = None
        self._lost: float | None = None
        self._asking: asyncio.Future[Any] | None = None
        self._closing: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Changes:
        try:
            self._stream = await self._ask(lambda: self._open(None))
        except asyncio.CancelledError:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def resume_token(self) -> Mapping[str, Any]:
        """Where whoever stops now goes on (`resume_after`): also before the first change has come."""
        token = self._token if self._stream is None else self._stream.resume_token
        if token is None and self._stream is None:
            raise RuntimeError("open it first: async with")
        if token is None:
            raise RuntimeError("this server gives none before the first change")
        return token

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if self._stream is None and self._token is None:
            raise RuntimeError("open it first: async with")
        while True:
            change = None
            try:
                stream = self._stream or await self._reopen()
                if not stream.alive and self._asking is None:
                    raise StopAsyncIteration
                change = await self._ask(stream.try_next)
                self._token, self._lost = stream.resume_token, None
            except (QueueFull, QueueTimeout):
                pass  # asked too much of the pool just now
            except AutoReconnect as error:
                self._lose(error)
            if change is not None:
                return change
            await asyncio.sleep(self._pause)

    def _lose(self, error: AutoReconnect) -> None:
        """The driver has tried once to go on, and found nobody: try again, where it stopped. Raises the error where
        there is no telling where, or it has been too long."""
        now = time.monotonic()
        self._lost = self._lost or now
        if self._stream is not None:
            self._token = self._stream.resume_token or self._token
            closing = asyncio.ensure_future(self._stream.close())
            closing.add_done_callback(_take_outcome)
            closing.add_done_callback(self._closing.discard)
            self._closing.add(closing)
            self._stream = None
        if self._token is None or now - self._lost > PATIENCE:
            raise error

    async def _reopen(self) -> ChangeStream:
        self._stream = await self._ask(lambda: self._open(self._token))
        return self._stream

    async def _ask(self, ask: Callable[[], Awaitable[Result]]) -> Result:
        """Whoever is cancelled meanwhile goes, the question stays: its connection is kept, its cursor closed, and its
        answer is for whoever asks next."""
        asking = self._asking
        if asking is None:
            asking = self._asking = asyncio.ensure_future(ask())
            asking.add_done_callback(_take_outcome)
        try:
            answer: Result = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if asking.cancelled():
                self._asking = None
            raise
        except BaseException:
            self._asking = None
            raise
        self._asking = None
        return answer

    async def _end(self) -> None:
        """In a task, which outlives a caller that is cancelled again and again, as a cancel scope of anyio does it."""
        await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        if self._asking is not None:
            await asyncio.wait({self._asking})
            if self._stream is None and self._asking.exception() is None:
                self._stream = self._asking.result()  # it was opened for a caller who had gone
        if self._stream is not None:
            await self._stream.close()
        if self._closing:  # of members that may be gone
            await asyncio.wait(tuple(self._closing), timeout=1)


def _take_outcome(asked: asyncio.Future[Any]) -> None:
    """So that asyncio doesn't complain of a failure that nobody waited for."""
    if not asked.cancelled():
        asked.exception()
