"""The synchronous client inside Motor's, with what Sluice changes in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from pymongo import MongoClient, _csot
from pymongo.errors import OperationFailure
from pymongo.synchronous.mongo_client import _ClientConnectionRetryable
from pymongo.synchronous.server import Server

from sluice.drivers import overload
from sluice.drivers.connected import Document
from sluice.drivers.selection import allow_for_round_trip, within_deadline
from sluice.pool.retry_budget import RetryBudget

if TYPE_CHECKING:
    from sluice.drivers.motor.pool import SyncPool

Result = TypeVar("Result")


class _Retryable(_ClientConnectionRetryable[Result]):
    """An operation and its retries."""

    budget: RetryBudget
    operation: str

    def _read(self) -> Result:
        try:
            return super()._read()
        except OperationFailure as error:
            self._notice(error)
            raise

    def _write(self) -> Result:
        try:
            return super()._write()
        except OperationFailure as error:
            self._notice(error)
            raise

    def _notice(self, error: OperationFailure) -> None:
        if overload.refused(error) and self._server is not None:
            cast("SyncPool", self._server.pool).overloaded()
            policy: Any = self._retry_policy
            self._retry_policy = cast("Any", overload.policy(policy, self.operation, self.budget))


class SyncClient(MongoClient[Document]):
    """Its server selection draws on the request's deadline."""

    budget: RetryBudget

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.budget = RetryBudget()
        super().__init__(*arguments, **options)

    def _select_server(self, *arguments: Any, **options: Any) -> Server:
        with within_deadline(self.options.server_selection_timeout):
            server = super()._select_server(*arguments, **options)
        allow_for_round_trip(server.description)
        return server

    @_csot.apply
    def _retry_internal(
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
        return work.run()
