"""Which exception means what to a caller: one table, first match wins.

What a server answers is told by its code (`server_codes`) or the driver's class. In doubt, a write may have happened:
not even "not primary" says that it hasn't, since the driver may have sent it before and raises what its second attempt
met. Only the label `NoWritesPerformed` excludes it, which 6.0.5 doesn't give; whatever Sluice raises itself before it
sends anything has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import bson.errors
import pymongo.errors as driver
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems, server_codes
from app.http.methods import allowed
from app.http.problems import Kind, Problem
from sluice import (
    NOTHING_WRITTEN,
    REFUSAL_CODES,
    Abandoned,
    DeadlineExceeded,
    NotPrepared,
    PoolClosed,
    PoolError,
    PoolUnavailable,
    QueueFull,
    QueueTimeout,
)

MOST_FIELDS = 100
"""Fields that an answer says are wrong: a body may have a hundred thousand of them."""
DUPLICATE_KEY = 11000
DOCUMENT_VALIDATION = 121
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})

CLIENT_GONE = Kind("/problems/client-gone", 499, "Whoever asked has gone")
QUEUE_FULL = Kind("/problems/queue-full", 503, "Too many requests wait for a connection", 1)
QUEUE_TIMEOUT = Kind("/problems/queue-timeout", 503, "No connection came free in time", 1)
POOL_UNAVAILABLE = Kind("/problems/pool-unavailable", 503, "There is no connection to the database", 5)
NOT_PREPARED = Kind("/problems/not-prepared", 503, "The database isn't ready to be written to", 5)
CLOSED = Kind("/problems/pool-closed", 503, "This worker is closing", 1)
NO_SERVER = Kind("/problems/no-server", 503, "The database can't be reached", 5)
NOT_PRIMARY = Kind("/problems/not-primary", 503, "The database is electing a new primary", 2)
CONNECTION_LOST = Kind("/problems/connection-lost", 503, "The connection was lost", 1)
INTERRUPTED = Kind("/problems/interrupted", 503, "The database gave the operation up", 1)
TROUBLE = Kind("/problems/database-trouble", 503, "The database can't do this now", 5)
OVERLOADED = Kind("/problems/overloaded", 503, "The database is overloaded", 1, spread=2)
TRANSIENT = Kind("/problems/transaction-aborted", 503, "The transaction was aborted", 1)
NETWORK_TIMEOUT = Kind("/problems/network-timeout", 504, "The database didn't answer in time")
DEADLINE = Kind("/problems/deadline-exceeded", 504, "The request's time is used up")
WRITE_TIMEOUT = Kind("/problems/write-concern-timeout", 504, "The write was not confirmed in time")
COMMIT_UNKNOWN = Kind("/problems/commit-unknown", 504, "The transaction's commit was not confirmed")
DUPLICATE = Kind("/problems/duplicate", 409, "Something with this unique value exists already")
CHANGES_LOST = Kind("/problems/changes-lost", 410, "What happened since isn't known any more")
NO_CHANGE = Kind("/problems/unknown-change", 422, "There is no such change to go on from")
UNREADABLE_DOCUMENT = Kind("/problems/document-unreadable", 409, "What is stored is nothing that this service knows")
DOCUMENT_TOO_LARGE = Kind("/problems/document-too-large", 413, "The document is too large")
REFUSED_DOCUMENT = Kind("/problems/document-refused", 422, "The document doesn't fit the collection's schema")
UNSTORABLE = Kind("/problems/value-refused", 422, "A value can't be stored in the database")


class Meaning(Enum):
    """What an exception says of the operation that it ended."""

    RETRYABLE = "nothing has happened; repeating helps"
    UNKNOWN = "a write may have happened; a read may be repeated"
    REFUSED = "the caller asked for what can't be"
    OURS = "the service, or who runs it, is at fault"


RETRYABLE, UNKNOWN, REFUSED, OURS = Meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Matches an exception of one of `classes` that has all `labels` and one of `codes` (none given: any), and
    `words` in its message. `said`: who runs the service learns of it from a line in the log."""

    meaning: Meaning
    kind: Kind
    classes: tuple[type[Exception], ...] = (driver.PyMongoError,)
    codes: server_codes.Codes = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    words: str = ""
    said: bool = False

    def matches(self, error: Exception) -> bool:
        if not isinstance(error, self.classes) or (self.words and self.words not in str(error)):
            return False
        if self.labels and not all(_has_label(error, label) for label in self.labels):
            return False
        if not self.codes:
            return True
        codes = codes_of(error)
        if self.meaning is REFUSED and not codes <= CALLERS_CODES:  # a bulk that met worse beside it
            return False
        return not codes.isdisjoint(self.codes)


TABLE: tuple[Row, ...] = (
    # Sluice's own: before anything was sent
    Row(meaning=REFUSED, kind=CLIENT_GONE, classes=(Abandoned,)),
    Row(meaning=RETRYABLE, kind=QUEUE_FULL, classes=(QueueFull,)),
    Row(meaning=RETRYABLE, kind=QUEUE_TIMEOUT, classes=(QueueTimeout,)),
    Row(meaning=RETRYABLE, kind=NOT_PREPARED, classes=(NotPrepared,)),
    Row(meaning=RETRYABLE, kind=POOL_UNAVAILABLE, classes=(PoolUnavailable, PoolError)),
    Row(meaning=UNKNOWN, kind=DEADLINE, classes=(DeadlineExceeded,)),
    # What the driver says of a whole transaction, whichever class it says it with
    Row(meaning=UNKNOWN, kind=COMMIT_UNKNOWN, labels=frozenset({"UnknownTransactionCommitResult"})),
    Row(meaning=RETRYABLE, kind=TRANSIENT, labels=frozenset({"TransientTransactionError"})),
    # The driver's own: about the way to a member
    Row(meaning=RETRYABLE, kind=QUEUE_TIMEOUT, classes=(driver.WaitQueueTimeoutError,)),
    Row(meaning=RETRYABLE, kind=NO_SERVER, classes=(driver.ServerSelectionTimeoutError,)),
    Row(meaning=RETRYABLE, kind=CLOSED, classes=(PoolClosed,)),
    Row(meaning=RETRYABLE, kind=CLOSED, classes=(driver.InvalidOperation,), words="after close"),
    Row(meaning=UNKNOWN, kind=NOT_PRIMARY, classes=(driver.NotPrimaryError,)),
    Row(meaning=UNKNOWN, kind=NETWORK_TIMEOUT, classes=(driver.NetworkTimeout,)),
    Row(meaning=UNKNOWN, kind=CONNECTION_LOST, classes=(driver.AutoReconnect, driver.ConnectionFailure)),
    # A write that happened and was not confirmed, whatever code says why; of a bulk, too
    Row(meaning=UNKNOWN, kind=WRITE_TIMEOUT, classes=(driver.WriteConcernError,)),
    Row(meaning=UNKNOWN, kind=WRITE_TIMEOUT, codes=server_codes.UNCONFIRMED),
    # What is wrong with this service, or with its rights
    Row(meaning=OURS, kind=problems.INTERNAL, codes=REFUSAL_CODES, said=True),
    Row(meaning=OURS, kind=problems.INTERNAL, codes=server_codes.MISCONFIGURED, said=True),
    Row(meaning=OURS, kind=problems.INTERNAL, classes=(driver.ConfigurationError, driver.EncryptionError), said=True),
    # The member sheds load
    Row(meaning=RETRYABLE, kind=OVERLOADED, labels=frozenset({"SystemOverloadedError", "RetryableError"})),
    Row(meaning=UNKNOWN, kind=OVERLOADED, labels=frozenset({"SystemOverloadedError"})),
    Row(meaning=UNKNOWN, kind=OVERLOADED, codes=server_codes.OVERLOAD),
    # An election; in a bulk's single failures, and where the driver has no class for it
    Row(meaning=UNKNOWN, kind=NOT_PRIMARY, codes=server_codes.ELECTION),
    # The operation's own time, or the caller's
    Row(meaning=UNKNOWN, kind=DEADLINE, classes=(driver.ExecutionTimeout,)),
    Row(meaning=UNKNOWN, kind=DEADLINE, codes={50: "MaxTimeMSExpired"}),
    # Somebody or something ended it: killOp, killAllSessions, a dropped collection, another write
    Row(meaning=UNKNOWN, kind=INTERRUPTED, classes=(driver.CursorNotFound,)),
    Row(meaning=UNKNOWN, kind=INTERRUPTED, codes=server_codes.ENDED),
    # The members have trouble, among themselves or with their machines
    Row(meaning=UNKNOWN, kind=TROUBLE, codes=server_codes.TROUBLED, said=True),
    # What the caller sent
    Row(meaning=REFUSED, kind=CHANGES_LOST, codes=server_codes.CHANGES_LOST),
    Row(meaning=REFUSED, kind=NO_CHANGE, codes=server_codes.NO_CHANGE),
    Row(meaning=REFUSED, kind=REFUSED_DOCUMENT, codes={DOCUMENT_VALIDATION: "DocumentValidationFailure"}),
    Row(
        meaning=REFUSED,
        kind=UNSTORABLE,
        codes={15: "Overflow", 22: "InvalidBSON", 17280: "KeyTooLong", 378: "NonConformantBSON"},
    ),
    Row(
        meaning=REFUSED,
        kind=DOCUMENT_TOO_LARGE,
        codes={10334: "BSONObjectTooLarge", 17419: "update makes it too large", 17420: "replacement is too large"},
    ),
    Row(meaning=REFUSED, kind=DUPLICATE, codes={DUPLICATE_KEY: "DuplicateKey", 11001: "as updated", 12582: "on shard"}),
    Row(meaning=REFUSED, kind=DUPLICATE, classes=(driver.DuplicateKeyError,)),
    Row(meaning=REFUSED, kind=DOCUMENT_TOO_LARGE, classes=(driver.DocumentTooLarge,)),
    Row(meaning=REFUSED, kind=UNSTORABLE, classes=(bson.errors.InvalidStringData,)),
    Row(meaning=REFUSED, kind=UNSTORABLE, classes=(bson.errors.InvalidDocument,), words="must not contain the NULL"),
    Row(meaning=REFUSED, kind=UNSTORABLE, classes=(OverflowError,), words="MongoDB can only handle up to 8-byte ints"),
    Row(meaning=REFUSED, kind=UNSTORABLE, classes=(UnicodeEncodeError,), words="surrogates not allowed"),
    # Nobody expected it
    Row(meaning=OURS, kind=problems.INTERNAL, classes=(Exception,)),
)
UNEXPECTED = TABLE[-1]
NAMES = {code: name for row in TABLE for code, name in row.codes.items()}
CALLERS_CODES = frozenset(code for row in TABLE if row.meaning is REFUSED for code in row.codes)
IN_SPITE = frozenset({WRITE_TIMEOUT, COMMIT_UNKNOWN})
"""What reached the database, whether or not it takes this service in now."""


def codes_of(error: Exception) -> frozenset[int]:
    """The server's codes for what went wrong; of a bulk, one per failed write, or why the rest was not tried."""
    match error:
        case driver.BulkWriteError() | driver.ClientBulkWriteException():
            details = error.details or {}
            failed = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
            return frozenset(failure["code"] for failure in failed if "code" in failure)
        case driver.OperationFailure() if error.code is not None:
            return frozenset({error.code})
    return frozenset()


def row_of(error: Exception) -> Row:
    """The table's row for an exception."""
    if isinstance(error, driver.EncryptionError) and isinstance(error.cause, driver.PyMongoError):
        return row_of(error.cause)
    if isinstance(error, driver.ClientBulkWriteException) and isinstance(error.error, Exception):
        return row_of(error.error)
    if isinstance(error, driver.BulkWriteError | driver.ClientBulkWriteException):
        details = error.details or {}
        if details.get("writeConcernErrors"):
            return next(row for row in TABLE if row.kind is WRITE_TIMEOUT)
    return next(row for row in TABLE if row.matches(error))


def kind_of(error: Exception, method: str = "GET") -> Kind:
    """What an exception means to the caller of a request with this method."""
    row = row_of(error)
    return replace(row.kind, retry_after=None) if _in_doubt(row, error, method) else row.kind


def is_callers(error: Exception) -> bool:
    """Whether an exception tells the caller what to change, and nobody else anything."""
    return row_of(error).meaning is REFUSED


def instead(error: Exception, refusal: Exception | None) -> Exception:
    """The reason to report while the database refuses this service: whatever else ends an operation then, a wait or a
    lost connection say, comes of it."""
    if refusal is None:
        return error
    row = row_of(error)
    return refusal if row.meaning in (RETRYABLE, UNKNOWN) and row.kind not in IN_SPITE else error


def cause_of(error: Exception) -> str | None:
    """What to log in one line of an exception that concerns whoever runs the service; None of one that doesn't, or
    that nobody expected."""
    return summary(error) if row_of(error).said else None


def summary(error: Exception) -> str:
    """An exception in one line, without the command that the server quotes, in which values of callers are."""
    details = getattr(error, "details", None)
    answer = details.get("errmsg") if isinstance(details, Mapping) else None
    message = str(answer or error).partition(", full error:")[0].partition("{")[0]
    named = [f"{code} {NAMES.get(code, '')}".strip() for code in sorted(codes_of(error))]
    return f"MongoDB: {', '.join(named) or type(error).__name__}: {' '.join(message.split())[:500]}"


def problem_of(error: Exception, method: str = "GET", refusal: Exception | None = None) -> Problem:
    """The problem to report for any exception; says nothing of the inside of one that nobody expected.

    `refusal`: why the database takes this service in no more, where it doesn't.
    """
    match error:
        case Problem():
            return error
        case RequestValidationError() if _lacks_if_match(error):
            detail = "If-Match is needed: the ETag that you read, or * for any"
            return Problem(problems.PRECONDITION_REQUIRED, detail)
        case RequestValidationError():
            return Problem(problems.INVALID, "some fields are not as they should be", extra={"errors": _fields(error)})
        case HTTPException():
            return Problem(problems.of_status(error.status_code), str(error.detail), headers=error.headers)
    in_doubt = _in_doubt(row_of(error), error, method)
    error = instead(error, refusal)
    kind = kind_of(error, method)
    detail = kind.title
    if kind is DUPLICATE:
        detail = _what_is_duplicate(error)
    elif kind is problems.INTERNAL:
        detail = "the request id finds it in the logs"
    elif isinstance(error, PoolError | DeadlineExceeded):
        detail = str(error)
    return Problem(kind, f"{detail}; a write may have happened" if in_doubt else detail)


def _in_doubt(row: Row, error: Exception, method: str) -> bool:
    return row.meaning is UNKNOWN and method not in REPEATABLE and not _has_label(error, NOTHING_WRITTEN)


def _has_label(error: Exception, label: str) -> bool:
    return isinstance(error, driver.PyMongoError) and error.has_error_label(label)


def install(app: FastAPI) -> None:
    """Answer the framework's own errors, and `Problem`, as problems; `middleware.Problems` does the others."""
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(RequestValidationError, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request.method)
    methods = allowed(request.scope) if problem.kind == problems.METHOD_NOT_ALLOWED else []
    if methods and request.method not in methods:  # a route may refuse one itself
        problem.headers = {"Allow": ", ".join(methods)}  # the framework knows those of one route
    return problems.response(request, problem)


def _lacks_if_match(error: RequestValidationError) -> bool:
    """Whether nothing but a precondition is missing (RFC 6585, section 3)."""
    found = [(details["type"], ".".join(map(str, details["loc"])).lower()) for details in error.errors()]
    return found == [("missing", "header.if-match")]


def _fields(error: RequestValidationError) -> list[dict[str, str]]:
    """What is wrong where; without the values, which may be large or secret."""
    return [
        {"field": ".".join(map(str, details["loc"])), "message": details["msg"], "type": details["type"]}
        for details in error.errors()[:MOST_FIELDS]
    ]


def _what_is_duplicate(error: Exception) -> str:
    details = getattr(error, "details", None) or {}
    if isinstance(error, driver.BulkWriteError):
        details = details["writeErrors"][0]
    fields = ", ".join(details.get("keyPattern", {})) or "unique value"
    return f"this {fields} is taken"
