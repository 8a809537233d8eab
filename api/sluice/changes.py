"""A collection's changes as they happen, on either driver.

The driver's change stream keeps a connection for as long as the server waits for the next change: nearly always, so
that as many of them as a pool has connections would leave none. Here the server is asked again and again and waits for
nothing: between two questions a stream has no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar

from sluice.errors import QueueFull, QueueTimeout

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

    An election interrupts it no longer than it lasts; a full pool delays changes. Whatever else the driver raises ends
    it, and so does the end of the collection.
    """

    def __init__(self, open_stream: Callable[[], Awaitable[ChangeStream]], pause: float) -> None:
        self._open = open_stream
        self._pause = pause
        self._stream: ChangeStream | None = None
        self._asking: asyncio.Future[Any] | None = None

    async def __aenter__(self) -> Changes:
        try:
            self._stream = await self._ask(self._open)
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
        token = self._opened().resume_token
        if token is None:
            raise RuntimeError("this server gives none before the first change")
        return token

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> dict[str, Any]:
        stream = self._opened()
        while stream.alive or self._asking is not None:
            try:
                change = await self._ask(stream.try_next)
            except (QueueFull, QueueTimeout):
                change = None  # asked too much of the pool just now
            if change is not None:
                return change
            await asyncio.sleep(self._pause)
        raise StopAsyncIteration

    def _opened(self) -> ChangeStream:
        if self._stream is None:
            raise RuntimeError("open it first: async with")
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


def _take_outcome(asked: asyncio.Future[Any]) -> None:
    """So that asyncio doesn't complain of a failure that nobody waited for."""
    if not asked.cancelled():
        asked.exception()
