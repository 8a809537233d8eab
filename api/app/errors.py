"""Which exception means what to a caller: one table, first match wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app import problems
from app.methods import allowed
from app.problems import Kind, Problem
from sluice.errors import DeadlineExceeded, NotPrepared, PoolUnavailable, QueueFull, QueueTimeout

# https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/
NOT_PRIMARY_CODES = frozenset({91, 189, 10058, 10107, 11600, 11602, 13435, 13436})
KEY_NOT_FOUND = 211
"""A member that has just started can't check the cluster time that the driver sends with each command yet."""
DUPLICATE_KEY = 11000
DOCUMENT_VALIDATION = 121
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})

QUEUE_FULL = Kind("/problems/queue-full", 503, "Too many requests wait for a connection", 1)
QUEUE_TIMEOUT = Kind("/problems/queue-timeout", 503, "No connection came free in time", 1)
POOL_UNAVAILABLE = Kind("/problems/pool-unavailable", 503, "There is no connection to the database", 5)
NOT_PREPARED = Kind("/problems/not-prepared", 503, "The database isn't ready to be written to", 5)
NO_SERVER = Kind("/problems/no-server", 503, "The database can't be reached", 5)
NOT_PRIMARY = Kind("/problems/not-primary", 503, "The database is electing a new primary", 2)
NETWORK_TIMEOUT = Kind("/problems/network-timeout", 504, "The database didn't answer in time")
CONNECTION_LOST = Kind("/problems/connection-lost", 503, "The connection was lost")
DEADLINE = Kind("/problems/deadline-exceeded", 504, "The request's time is used up")
DUPLICATE = Kind("/problems/duplicate", 409, "Something with this unique value exists already")
WRITE_TIMEOUT = Kind("/problems/write-concern-timeout", 504, "The write was not confirmed in time")
OVERLOADED = Kind("/problems/overloaded", 503, "The database is overloaded", 1)
TRANSIENT = Kind("/problems/transaction-aborted", 503, "The transaction was aborted", 1)
REFUSED_DOCUMENT = Kind("/problems/document-refused", 422, "The document doesn't fit the collection's schema")
UNREADABLE_DOCUMENT = Kind("/problems/document-unreadable", 409, "What is stored is nothing that this service knows")
DOCUMENT_TOO_LARGE = Kind("/problems/document-too-large", 413, "The document is too large")
CLOSED = Kind("/problems/pool-closed", 503, "This worker is closing", 1)

IN_DOUBT = frozenset({NETWORK_TIMEOUT, CONNECTION_LOST, DEADLINE})
"""After these nobody knows whether what was sent has happened."""

Match = Callable[[Exception], bool]


def _is(*classes: type[Exception]) -> Match:
    return lambda error: isinstance(error, classes)


def _labelled(label: str) -> Match:
    return lambda error: isinstance(error, PyMongoError) and error.has_error_label(label)


def _codes(error: Exception) -> Iterable[Any]:
    """The server's codes for what went wrong, one per failed write of a bulk."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failed = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
        return [failure.get("code") for failure in failed]
    return [error.code] if isinstance(error, OperationFailure) else []


def _all_duplicates(error: Exception) -> bool:
    codes = _codes(error)
    return isinstance(error, BulkWriteError) and bool(codes) and set(codes) == {DUPLICATE_KEY}


TABLE: tuple[tuple[Match, Kind], ...] = (
    (_is(QueueFull), QUEUE_FULL),
    (_is(QueueTimeout, WaitQueueTimeoutError), QUEUE_TIMEOUT),
    (_is(PoolUnavailable), POOL_UNAVAILABLE),
    (_is(NotPrepared), NOT_PREPARED),
    (_is(ServerSelectionTimeoutError), NO_SERVER),
    (_is(NotPrimaryError), NOT_PRIMARY),
    (_is(NetworkTimeout), NETWORK_TIMEOUT),
    (_is(AutoReconnect, ConnectionFailure), CONNECTION_LOST),
    (_is(ExecutionTimeout, DeadlineExceeded), DEADLINE),
    (_is(DuplicateKeyError), DUPLICATE),
    (_all_duplicates, DUPLICATE),
    (_is(WTimeoutError), WRITE_TIMEOUT),
    (lambda error: isinstance(error, WriteConcernError) and error.code in NOT_PRIMARY_CODES, NOT_PRIMARY),
    (lambda error: KEY_NOT_FOUND in _codes(error), NOT_PRIMARY),
    (_labelled("SystemOverloadedError"), OVERLOADED),
    (_labelled("TransientTransactionError"), TRANSIENT),
    (lambda error: DOCUMENT_VALIDATION in _codes(error), REFUSED_DOCUMENT),
    (_is(DocumentTooLarge), DOCUMENT_TOO_LARGE),
    (lambda error: isinstance(error, InvalidOperation) and "after close" in str(error), CLOSED),
    (lambda error: type(error).__name__ == "_PoolClosedError", CLOSED),  # private, and an application sees it
    (_is(Exception), problems.INTERNAL),
)


def kind_of(error: Exception, method: str = "GET") -> Kind:
    """What an exception means to the caller of a request with this method."""
    kind = next(kind for matches, kind in TABLE if matches(error))
    if kind is CONNECTION_LOST and method in REPEATABLE:
        return Kind(kind.type, kind.status, kind.title, 1)
    return kind


def problem_of(error: Exception, method: str = "GET") -> Problem:
    """The problem to report for any exception; says nothing of the inside of one that nobody expected."""
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return Problem(problems.INVALID, "some fields are not as they should be", extra={"errors": _fields(error)})
        case HTTPException():
            return Problem(problems.of_status(error.status_code), str(error.detail), headers=error.headers)
    kind = kind_of(error, method)
    if kind is DUPLICATE:
        return Problem(kind, _what_is_duplicate(error))
    detail = "the request id finds it in the logs" if kind is problems.INTERNAL else kind.title
    if isinstance(error, QueueFull | QueueTimeout | PoolUnavailable | NotPrepared | DeadlineExceeded):
        detail = str(error)
    if kind in IN_DOUBT and method not in REPEATABLE:
        detail += "; a write may have happened"
    return Problem(kind, detail)


def install(app: FastAPI) -> None:
    """Answer the framework's own errors, and `Problem`, as problems; `middleware.Problems` does the others."""
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request.method)
    methods = allowed(request.scope) if problem.status_code == 405 else []
    if methods and request.method not in methods:  # a route may refuse one itself
        problem.headers = {"Allow": ", ".join(methods)}  # the framework knows those of one route
    return problems.response(request, problem)


def _fields(error: RequestValidationError) -> list[dict[str, str]]:
    """What is wrong where; without the values, which may be large or secret."""
    return [
        {"field": ".".join(map(str, details["loc"])), "message": details["msg"], "type": details["type"]}
        for details in error.errors()
    ]


def _what_is_duplicate(error: Exception) -> str:
    details = getattr(error, "details", None) or {}
    if isinstance(error, BulkWriteError):
        details = details["writeErrors"][0]
    fields = ", ".join(details.get("keyPattern", {})) or "unique value"
    return f"this {fields} is taken"
