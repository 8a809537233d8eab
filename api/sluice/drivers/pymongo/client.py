"""PyMongo's asynchronous client, with what Sluice changes in it.

What the turnstile turned away isn't retried: the driver would repeat a read once, or without a pause for as long as
`pymongo.timeout()` allows. What ends something on the server says so to the turnstile.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pymongo import AsyncMongoClient, _csot
from pymongo.asynchronous.mongo_client import _ClientConnectionRetryable
from pymongo.asynchronous.server import Server
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.topology_description import TopologyDescription

from sluice.drivers import overload
from sluice.drivers.connected import Collection, Document
from sluice.drivers.finding import Query
from sluice.drivers.pymongo import finding
from sluice.drivers.pymongo.endings import ENDINGS, finishing, see_through, take_outcome
from sluice.drivers.selection import allow_for_round_trip, within_deadline
from sluice.errors import PoolError
from sluice.pool.retry_budget import RetryBudget

if TYPE_CHECKING:
    from sluice.drivers.pymongo.pool import AsyncPool

Result = TypeVar("Result")
SELECTORS = 8
"""Most that are remembered: an application has a few read preferences; others are made for one operation."""


def _alike(selector: Any, other: Any) -> bool:
    """Whether two selectors choose the same members. To compare read preferences asks a deprecated property."""
    if selector is other:
        return True
    document = getattr(selector, "document", None)
    return document is not None and type(selector) is type(other) and document == other.document


class _Retryable(_ClientConnectionRetryable[Result]):
    """An operation and its retries."""

    budget: RetryBudget
    operation: str
    failed: PyMongoError | None = None
    """What its first attempt met, where that was made before."""

    async def _read(self) -> Result:
        failed, self.failed = self.failed, None
        try:
            if failed is not None:
                raise failed
            return await super()._read()
        except PoolError:
            self._retryable = False
            raise
        except OperationFailure as error:
            self._notice(error)
            raise

    async def _write(self) -> Result:
        try:
            return await super()._write()
        except OperationFailure as error:
            self._notice(error)
            raise

    def _notice(self, error: OperationFailure) -> None:
        if overload.refused(error) and self._server is not None:
            cast("AsyncPool", self._server.pool).overloaded()
            policy: Any = self._retry_policy
            self._retry_policy = cast("Any", overload.policy(policy, self.operation, self.budget))


class AsyncClient(AsyncMongoClient[Document]):
    """PyMongo's asynchronous client."""

    budget: RetryBudget
    cluster_time = b""
    """What a lean query has heard last of it, encoded."""
    _described: TopologyDescription | None = None
    _answered: list[Any]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.budget = RetryBudget()
        super().__init__(*arguments, **options)

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

    async def _select_server(self, server_selector: Any, *arguments: Any, **options: Any) -> Server:
        server = await self._select_within_deadline(server_selector, *arguments, **options)
        allow_for_round_trip(server.description)
        return server

    async def _select_within_deadline(self, server_selector: Any, *arguments: Any, **options: Any) -> Server:
        with within_deadline(self.options.server_selection_timeout):
            at_once = self._would_answer(server_selector)
            selecting = super()._select_server(server_selector, *arguments, **options)
            if at_once:
                return await selecting
            # It will wait, in a task of its own, which nobody cancels and which ends by its timeout.
            task = asyncio.ensure_future(selecting)
            task.add_done_callback(take_outcome)
            return await asyncio.shield(task)

    async def find_lean(self, collection: Collection, query: Query) -> list[Any]:
        """See `sluice.drivers.finding.find`."""
        return await finding.find(self, collection, query)

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
        first = finding.take_first_attempt()
        if first is None:
            self.budget.earn()
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
        work.budget, work.operation = self.budget, operation
        if first is not None and first.error is not None:
            work.failed, first.error = first.error, None
            work._server = cast("Any", first.server)
        return await (see_through(work.run()) if operation in ENDINGS else work.run())

    async def _kill_cursors(self, *arguments: Any, **options: Any) -> None:
        with finishing():
            await super()._kill_cursors(*arguments, **options)

    async def _end_sessions(self, *arguments: Any, **options: Any) -> None:
        with finishing():
            await super()._end_sessions(*arguments, **options)
