"""Server selection that draws on the request's deadline, in both drivers' clients.

The drivers wait for a suitable member as long as the client's setting says. Cancelling the wait is not enough: Motor's
threads can't be cancelled, and before Python 3.12 `asyncio.wait_for`, which PyMongo waits with, can lose a
cancellation (https://github.com/python/cpython/issues/86296).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pymongo
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous.server import Server as AsyncServer
from pymongo.synchronous.server import Server as SyncServer

from sluice import deadline

Document = dict[str, Any]


def _within_deadline(setting: float) -> AbstractContextManager[Any]:
    left = deadline.remaining()
    return nullcontext() if left is None or left <= 0 else pymongo.timeout(min(left, setting))


class AsyncClient(AsyncMongoClient[Document]):
    """PyMongo's asynchronous client."""

    async def _select_server(self, *arguments: Any, **options: Any) -> AsyncServer:
        with _within_deadline(self.options.server_selection_timeout):
            return await super()._select_server(*arguments, **options)


class SyncClient(MongoClient[Document]):
    """The client inside Motor's."""

    def _select_server(self, *arguments: Any, **options: Any) -> SyncServer:
        with _within_deadline(self.options.server_selection_timeout):
            return super()._select_server(*arguments, **options)
