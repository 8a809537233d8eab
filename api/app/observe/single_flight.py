"""One computation for a burst of callers, and for a while after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from cachetools import TTLCache

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Answers with the last result while it's younger than `seconds`; else all who ask at once share a new one."""

    def __init__(self, compute: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._compute = compute
        self._fresh: TTLCache[None, T] = TTLCache(1, seconds)
        self._running: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The result. Raises what the computation raises; that isn't kept."""
        for result in self._fresh.values():
            return result
        if self._running is None or self._running.done():
            # In a context of its own: it may not end with the deadline of whoever asked first.
            self._running = asyncio.create_task(self._run(), context=Context())
        return await asyncio.shield(self._running)

    async def _run(self) -> T:
        result = self._fresh[None] = await self._compute()
        return result
