"""Server selection that draws on the request's deadline, in both drivers' clients.

The drivers wait for a suitable member as long as the client's setting says. Cancelling the wait is not enough: Motor's
threads can't be cancelled, and before Python 3.12 `asyncio.wait_for`, which PyMongo waits with, can lose a
cancellation (https://github.com/python/cpython/issues/86296), or leave the lock of PyMongo's topology taken for ever.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pymongo
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.server import Server as AsyncServer
from pymongo.synchronous.server import Server as SyncServer
from pymongo.topology_description import TopologyDescription

from sluice import deadline

Document = dict[str, Any]
SELECTORS = 8
"""Most that are remembered: an application has a few read preferences; others are made for one operation."""


def _within_deadline(setting: float) -> AbstractContextManager[Any]:
    left = deadline.remaining()
    return nullcontext() if left is None or left <= 0 else pymongo.timeout(min(left, setting))


class AsyncClient(AsyncMongoClient[Document]):
    """PyMongo's asynchronous client."""

    _described: TopologyDescription | None = None
    _answered: list[Any]

    def _would_answer(self, server_selector: Any) -> bool:
        """Whether a suitable member is known; asked once per description, since that costs more than selecting."""
        description = self.topology_description
        if description is not self._described:
            self._described, self._answered = description, []
        if server_selector in self._answered:
            return True
        if not description.apply_selector(server_selector):
            return False
        if len(self._answered) < SELECTORS:
            self._answered.append(server_selector)
        return True

    async def _select_server(self, server_selector: Any, *arguments: Any, **options: Any) -> AsyncServer:
        with _within_deadline(self.options.server_selection_timeout):
            at_once = self._would_answer(server_selector)
            selecting = super()._select_server(server_selector, *arguments, **options)
            if at_once:
                return await selecting
            # It will wait, in a task of its own, which nobody cancels and which ends by its timeout.
            task = asyncio.ensure_future(selecting)
            task.add_done_callback(_take_outcome)
            return await asyncio.shield(task)


def _take_outcome(task: asyncio.Task[AsyncServer]) -> None:
    """So that asyncio doesn't complain of a failure that nobody waited for."""
    if not task.cancelled():
        task.exception()


class SyncClient(MongoClient[Document]):
    """The client inside Motor's."""

    def _select_server(self, *arguments: Any, **options: Any) -> SyncServer:
        with _within_deadline(self.options.server_selection_timeout):
            return super()._select_server(*arguments, **options)
