"""Both drivers' clients, with what Sluice changes in them.

Server selection draws on the request's deadline. The drivers wait for a suitable member as long as the client's setting
says, and cancelling the wait is not enough: Motor's threads can't be cancelled, and before Python 3.12
`asyncio.wait_for`, which PyMongo waits with, can lose a cancellation
(https://github.com/python/cpython/issues/86296), or leave the lock of PyMongo's topology taken for ever.

What the turnstile turned away isn't retried: the driver would repeat a read once, or without a pause for as long as
`pymongo.timeout()` allows. What ends something on the server says so to the turnstile.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import pymongo
from pymongo import AsyncMongoClient, MongoClient, _csot
from pymongo.asynchronous.mongo_client import _ClientConnectionRetryable
from pymongo.asynchronous.server import Server as AsyncServer
from pymongo.server_description import ServerDescription
from pymongo.synchronous.server import Server as SyncServer
from pymongo.topology_description import TopologyDescription

from sluice import deadline
from sluice.drivers.finishing import ENDINGS, finishing, see_through, take_outcome
from sluice.errors import PoolError

Result = TypeVar("Result")
Document = dict[str, Any]
SELECTORS = 8
"""Most that are remembered: an application has a few read preferences; others are made for one operation."""


def _within_deadline(setting: float) -> AbstractContextManager[Any]:
    left = deadline.remaining()
    return nullcontext() if left is None or left <= 0 else pymongo.timeout(min(left, setting))


def _allow_for_round_trip(member: ServerDescription) -> None:
    """As the driver does when it has selected a member, but where the operation sees it: what the driver has set ended
    with `_within_deadline`, or in a task of its own."""
    if _csot.get_timeout():
        _csot.set_rtt(member.min_round_trip_time)


def _alike(selector: Any, other: Any) -> bool:
    """Whether two selectors choose the same members. To compare read preferences asks a deprecated property."""
    if selector is other:
        return True
    document = getattr(selector, "document", None)
    return document is not None and type(selector) is type(other) and document == other.document


class _Retryable(_ClientConnectionRetryable[Result]):
    """An operation and its retries."""

    async def _read(self) -> Result:
        try:
            return await super()._read()
        except PoolError:
            self._retryable = False
            raise


class AsyncClient(AsyncMongoClient[Document]):
    """PyMongo's asynchronous client."""

    _described: TopologyDescription | None = None
    _answered: list[Any]

    def _would_answer(self, server_selector: Any) -> bool:
        """Whether a suitable member is known; asked once per description, since that costs more than selecting."""
        description = self.topology_description
        if description is not self._described:
            self._described, self._answered = description, []
        if any(_alike(server_selector, answered) for answered in self._answered):
            return True
        if not description.apply_selector(server_selector):
            return False
        if len(self._answered) < SELECTORS:
            self._answered.append(server_selector)
        return True

    async def _select_server(self, server_selector: Any, *arguments: Any, **options: Any) -> AsyncServer:
        server = await self._select_within_deadline(server_selector, *arguments, **options)
        _allow_for_round_trip(server.description)
        return server

    async def _select_within_deadline(self, server_selector: Any, *arguments: Any, **options: Any) -> AsyncServer:
        with _within_deadline(self.options.server_selection_timeout):
            at_once = self._would_answer(server_selector)
            selecting = super()._select_server(server_selector, *arguments, **options)
            if at_once:
                return await selecting
            # It will wait, in a task of its own, which nobody cancels and which ends by its timeout.
            task = asyncio.ensure_future(selecting)
            task.add_done_callback(take_outcome)
            return await asyncio.shield(task)

    @_csot.apply
    async def _retry_internal(
        self,
        func: Any,
        session: Any,
        bulk: Any,
        operation: str,
        is_read: bool = False,
        address: Any = None,
        read_pref: Any = None,
        retryable: bool = False,
        operation_id: int | None = None,
        is_run_command: bool = False,
        is_aggregate_write: bool = False,
    ) -> Any:
        work: _Retryable[Any] = _Retryable(
            self,
            func,
            bulk,
            operation,
            is_read=is_read,
            session=session,
            read_pref=read_pref,
            address=address,
            retryable=retryable,
            operation_id=operation_id,
            is_run_command=is_run_command,
            is_aggregate_write=is_aggregate_write,
        )
        return await (see_through(work.run()) if operation in ENDINGS else work.run())

    async def _kill_cursors(self, *arguments: Any, **options: Any) -> None:
        with finishing():
            await super()._kill_cursors(*arguments, **options)

    async def _end_sessions(self, *arguments: Any, **options: Any) -> None:
        with finishing():
            await super()._end_sessions(*arguments, **options)


class SyncClient(MongoClient[Document]):
    """The client inside Motor's."""

    def _select_server(self, *arguments: Any, **options: Any) -> SyncServer:
        with _within_deadline(self.options.server_selection_timeout):
            server = super()._select_server(*arguments, **options)
        _allow_for_round_trip(server.description)
        return server
