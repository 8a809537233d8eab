"""The table from exceptions to answers: every class of the drivers', every code of the servers', in every place."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import bson.errors
import pymongo.errors as driver
import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pymongo.helpers_shared import _check_command_response, _check_write_command_response

from app.http import errors
from app.http.errors import (
    NAMES,
    OURS,
    REFUSED,
    RETRYABLE,
    TABLE,
    UNEXPECTED,
    UNKNOWN,
    instead,
    kind_of,
    problem_of,
    row_of,
    summary,
)
from app.users.model import NewUser
from app.users.routes import _what_is_wrong
from sluice.coalescing.writer import _write_concern_error, write_error
from sluice.errors import (
    NOTHING_WRITTEN,
    REFUSAL_CODES,
    DeadlineExceeded,
    PoolClosed,
    PoolError,
    PoolUnavailable,
    QueueFull,
    QueueTimeout,
)

DOUBT = "; a write may have happened"
WRITES = ("POST", "PATCH", "DELETE")

# The server's error_codes.yml, by its categories; what may not leave a server (`InternalOnly`) is left out.
NOT_PRIMARY = {91, 189, 10058, 10107, 11600, 11602, 13435, 13436}
NETWORK = {6, 7, 89, 9001, 202}
INTERRUPTION = {24, 50, 237, 262, 279, 290, 355, 11600, 11601, 11602, 46841}
CURSOR = {43, 96, 175, 237, 314}
SNAPSHOT = {239, 246, 250, 272}
RETRIABLE = {6, 7, 89, 91, 189, 262, 358, 402, 406, 407, 412, 9001, 10107, 11600, 11602, 13435, 13436, 50915}
EXCEEDED_TIME = {50, 202, 262, 290, 407}
CANCELLATION = {90, 91, 310, 355, 11600, 46841}
OVERLOAD = {365, 433, 462, 16500}
MACHINES = {46, 133, 134, 211, 264, 371, 14031}
TRANSACTIONS = {112, 225, 251, 263, 267, 290}
PASSING = (
    NOT_PRIMARY | NETWORK | INTERRUPTION | CURSOR | SNAPSHOT | RETRIABLE | EXCEEDED_TIME | CANCELLATION | OVERLOAD
    | MACHINES | (TRANSACTIONS - {263})
)  # fmt: skip
WRITE_CONCERN = {64, 75, 79, 100}


def labelled(error: Exception, *labels: str) -> Exception:
    assert isinstance(error, driver.PyMongoError)
    for label in labels:
        error._add_error_label(label)
    return error


def raised(check: Any, *arguments: Any) -> Exception:
    """What the driver makes of an answer."""
    with pytest.raises(driver.PyMongoError) as caught:
        check(*arguments)
    return caught.value


def command_error(code: int, **more: Any) -> Exception:
    return raised(_check_command_response, {"ok": 0, "errmsg": "no", "code": code, **more}, 21)


def bulk(*codes: int, unconfirmed: int | None = None) -> driver.BulkWriteError:
    concern = [] if unconfirmed is None else [{"code": unconfirmed, "errmsg": "no"}]
    failures = [{"index": number, "code": code, "errmsg": "no"} for number, code in enumerate(codes)]
    return driver.BulkWriteError({"writeErrors": failures, "writeConcernErrors": concern})


@pytest.mark.parametrize(
    ("error", "status", "name", "retry_after"),
    [
        (QueueFull("full"), 503, "queue-full", 1),
        (QueueTimeout("waited"), 503, "queue-timeout", 1),
        (driver.WaitQueueTimeoutError("waited"), 503, "queue-timeout", 1),
        (PoolUnavailable("no client"), 503, "pool-unavailable", 5),
        (PoolClosed("closed"), 503, "pool-closed", 1),
        (driver.ServerSelectionTimeoutError("none"), 503, "no-server", 5),
        (driver.NotPrimaryError("stepped down"), 503, "not-primary", 2),
        (driver.NetworkTimeout("silence"), 504, "network-timeout", None),
        (driver.AutoReconnect("reset"), 503, "connection-lost", 1),
        (driver._OperationCancelled("cancelled"), 503, "connection-lost", 1),
        (driver.ConnectionFailure("refused"), 503, "connection-lost", 1),
        (driver.ExecutionTimeout("too long", 50), 504, "deadline-exceeded", None),
        (DeadlineExceeded("used up"), 504, "deadline-exceeded", None),
        (driver.DuplicateKeyError("taken", 11000), 409, "duplicate", None),
        (bulk(11000, 11000), 409, "duplicate", None),
        (bulk(11000, 2), 500, "internal-server-error", None),
        (bulk(11000, 14031), 503, "database-trouble", 5),
        (driver.WTimeoutError("waiting", 64), 504, "write-concern-timeout", None),
        (driver.WriteConcernError("stepped down", 10107), 504, "write-concern-timeout", None),
        (driver.WriteConcernError("odd", 100), 504, "write-concern-timeout", None),
        (bulk(11000, unconfirmed=91), 504, "write-concern-timeout", None),
        (driver.OperationFailure("No keys found for HMAC", 211), 503, "not-primary", 2),
        (driver.CursorNotFound("gone", 43), 503, "interrupted", 1),
        (driver.OperationFailure("killOp", 11601), 503, "interrupted", 1),
        (driver.OperationFailure("disk full", 14031), 503, "database-trouble", 5),
        (driver.OperationFailure("429, RetryAfterMs=20", 16500), 503, "overloaded", 1),
        (labelled(driver.OperationFailure("busy", 462), "SystemOverloadedError"), 503, "overloaded", 1),
        (labelled(driver.AutoReconnect("lost"), "TransientTransactionError"), 503, "transaction-aborted", 1),
        (labelled(driver.AutoReconnect("lost"), "UnknownTransactionCommitResult"), 504, "commit-unknown", None),
        (driver.WriteError("schema", 121), 422, "document-refused", None),
        (bulk(121, 11000), 422, "document-refused", None),
        (driver.DocumentTooLarge("17 MB"), 413, "document-too-large", None),
        (driver.OperationFailure("17 MB", 10334), 413, "document-too-large", None),
        (driver.OperationFailure("too deep", 15), 422, "value-refused", None),
        (driver.OperationFailure("the oplog begins later", 286), 410, "changes-lost", None),
        (driver.OperationFailure("no resume token", 260), 422, "unknown-change", None),
        (driver.OperationFailure("KeyString format error", 50870), 422, "unknown-change", None),
        (bson.errors.InvalidDocument("cannot encode object: set()"), 500, "internal-server-error", None),
        (driver.InvalidOperation("Cannot use AsyncMongoClient after close"), 503, "pool-closed", 1),
        (driver.InvalidOperation("some misuse"), 500, "internal-server-error", None),
        (driver.OperationFailure("auth", 18), 500, "internal-server-error", None),
        (driver.ConfigurationError("wrong"), 500, "internal-server-error", None),
        (driver.EncryptionError(driver.AutoReconnect("reset")), 503, "connection-lost", 1),
        (OverflowError("some other"), 500, "internal-server-error", None),
        (ZeroDivisionError(), 500, "internal-server-error", None),
    ],
)  # fmt: skip
def test_each_exception_has_its_answer(error: Exception, status: int, name: str, retry_after: int | None) -> None:
    kind = kind_of(error)
    assert (kind.status, kind.type, kind.retry_after) == (status, f"/problems/{name}", retry_after)


@pytest.mark.parametrize("code", sorted(PASSING))
def test_what_passes_is_nobodys_fault_and_a_read_may_be_repeated(code: int) -> None:
    for error in (command_error(code), command_error(code, errorLabels=["RetryableWriteError"])):
        problem = problem_of(error, "GET")
        assert problem.kind.status in (503, 504)
        assert problem.kind.retry_after or problem.kind.status == 504
        assert DOUBT not in problem.detail


@pytest.mark.parametrize("code", sorted(PASSING | WRITE_CONCERN))
@pytest.mark.parametrize("method", WRITES)
def test_a_write_is_in_doubt_unless_the_server_excludes_it(code: int, method: str) -> None:
    problem = problem_of(command_error(code, errorLabels=["RetryableWriteError"]), method)
    assert (problem.kind.status in (503, 504), problem.kind.retry_after) == (True, None)
    assert problem.detail.endswith(DOUBT)
    excluded = problem_of(command_error(code, errorLabels=[NOTHING_WRITTEN, "RetryableWriteError"]), method)
    assert DOUBT not in excluded.detail
    assert excluded.kind == row_of(command_error(code)).kind


@pytest.mark.parametrize("code", sorted(PASSING | WRITE_CONCERN | REFUSAL_CODES.keys() | {2, 0, 99999}))
def test_a_write_that_was_not_confirmed_may_stand_whatever_the_reason(code: int) -> None:
    failure = {"code": code, "errmsg": "no"}
    single = raised(_check_write_command_response, {"ok": 1, "n": 1, "writeConcernError": failure})
    modified = raised(_check_command_response, {"ok": 1, "writeConcernError": failure}, 21, None, True)
    batched = _write_concern_error(failure)
    assert type(batched) is type(single) is type(modified)
    for error in (single, modified, batched, bulk(unconfirmed=code), bulk(121, 112, unconfirmed=code)):
        for method in WRITES:
            problem = problem_of(error, method)
            assert (problem.kind.type, problem.kind.status) == ("/problems/write-concern-timeout", 504)
            assert problem.kind.retry_after is None
            assert problem.detail.endswith(DOUBT)


@pytest.mark.parametrize("code", sorted(NAMES.keys() | {2, 9, 99999}))
def test_a_batch_gives_each_caller_what_a_single_insert_gives(code: int) -> None:
    failure = {"index": 3, "code": code, "errmsg": "no"}
    single = raised(_check_write_command_response, {"ok": 1, "n": 0, "writeErrors": [{**failure, "index": 0}]})
    assert row_of(write_error(failure)) is row_of(single)
    assert DOUBT not in problem_of(write_error(failure), "POST").detail


@pytest.mark.parametrize("code", sorted(PASSING - {50}))
def test_in_a_transaction_nothing_stands_and_all_of_it_may_be_repeated(code: int) -> None:
    for method in WRITES:
        problem = problem_of(command_error(code, errorLabels=["TransientTransactionError"]), method)
        assert (problem.kind.status, problem.kind.retry_after) == (503, 1)
        assert DOUBT not in problem.detail
    for lost in (driver.AutoReconnect("lost"), driver.NetworkTimeout("silence"), driver.NotPrimaryError("gone")):
        assert row_of(labelled(lost, "TransientTransactionError")).meaning is RETRYABLE


@pytest.mark.parametrize("code", sorted(PASSING | WRITE_CONCERN))
def test_a_commit_without_a_clear_answer_is_unknown(code: int) -> None:
    errors = [
        command_error(code),
        raised(_check_command_response, {"ok": 1, "writeConcernError": {"code": code, "errmsg": ""}}, 21, None, True),
        driver.ServerSelectionTimeoutError("none"),
        driver.AutoReconnect("lost"),
    ]
    for error in errors:
        problem = problem_of(labelled(error, "UnknownTransactionCommitResult"), "POST")
        assert (problem.kind.status, problem.kind.retry_after) == (504, None)
        assert problem.detail.endswith(DOUBT)


@pytest.mark.parametrize("code", sorted(REFUSAL_CODES))
def test_a_refusal_is_the_services_fault_and_said_in_one_line(code: int) -> None:
    error = command_error(code)
    assert row_of(error).meaning is OURS
    assert row_of(error) is not UNEXPECTED
    assert {kind_of(error, method).status for method in ("GET", *WRITES)} == {500}
    assert summary(error) == f"MongoDB: {code} {REFUSAL_CODES[code]}: no"


def classes(module: Any) -> Iterator[type[Exception]]:
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Exception) and found.__module__ == module.__name__:
            yield found


UNEXPECTED_CLASSES = {
    "BSONError", "InvalidBSON", "InvalidDocument", "InvalidId",
    "PyMongoError", "ProtocolError", "OperationFailure", "WriteError", "BulkWriteError", "ClientBulkWriteException",
    "InvalidOperation", "InvalidName", "CollectionInvalid",
}  # fmt: skip
"""Bugs, or classes that mean nothing without a code."""


@pytest.mark.parametrize("kind", [*classes(driver), *classes(bson.errors)], ids=lambda kind: kind.__name__)
def test_every_class_of_the_drivers_is_in_the_table(kind: type[Exception]) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "BulkWriteError": ({"writeErrors": [], "writeConcernErrors": []},),
        "ClientBulkWriteException": ({"writeErrors": [], "writeConcernErrors": []}, False),
        "EncryptedCollectionError": (ValueError(""), {}),
        "EncryptionError": (ValueError(""),),
    }
    error = kind(*arguments.get(kind.__name__, ("message",)))
    assert (row_of(error) is UNEXPECTED) == (kind.__name__ in UNEXPECTED_CLASSES)


def test_a_clients_bulk_is_read_as_a_collections() -> None:
    def of(**details: Any) -> driver.ClientBulkWriteException:
        return driver.ClientBulkWriteException({"writeErrors": [], "writeConcernErrors": [], **details}, False)

    assert kind_of(of(writeErrors=[{"code": 11000}])).status == 409
    assert kind_of(of(writeConcernErrors=[{"code": 11602}])).status == 504
    assert kind_of(of(error=driver.AutoReconnect("lost"), anySuccessful=True), "POST").type.endswith("connection-lost")


@pytest.mark.parametrize("value", [2**70, "\ud800", {"a\0b": 1}])
def test_a_value_that_bson_has_no_room_for_is_the_callers(value: Any) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 each has a class of its own
        bson.encode({"value": value})
    assert kind_of(caught.value, "POST").status == 422


def test_no_code_is_in_two_rows() -> None:
    codes = [code for row in TABLE for code in row.codes]
    assert len(codes) == len(set(codes))


def test_only_a_write_is_in_doubt_and_only_reads_are_invited_then() -> None:
    for row in TABLE:
        assert (row.meaning is REFUSED) == (400 <= row.kind.status < 500)
        assert (row.meaning is OURS) == (row.kind.status == 500)
        assert row.meaning is not RETRYABLE or row.kind.retry_after
    assert {row.kind.status for row in TABLE if row.meaning is UNKNOWN} == {503, 504}


def test_while_the_database_refuses_this_service_whatever_comes_of_it_is_that() -> None:
    refusal = driver.OperationFailure("Authentication failed.", 18)
    comes_of_it = (driver.AutoReconnect("paused"), driver.ServerSelectionTimeoutError("none"), DeadlineExceeded("over"))
    for error in comes_of_it:
        assert instead(error, refusal) is refusal
        assert instead(error, None) is error
        assert problem_of(error, "GET", refusal).kind.status == 500
    assert problem_of(driver.AutoReconnect("lost"), "POST", refusal).detail.endswith(DOUBT)
    for other in (driver.DuplicateKeyError("taken", 11000), driver.WriteConcernError("late", 64), ZeroDivisionError()):
        assert instead(other, refusal) is other


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("the request's 300 ms are used up"),
        driver.ExecutionTimeout("too long", 50),
        driver.NetworkTimeout("silence"),
        driver.AutoReconnect("reset"),
        driver.NotPrimaryError("stepped down"),
    ],
)
def test_who_wrote_is_told_that_it_may_have_happened(error: Exception) -> None:
    for method in WRITES:
        assert problem_of(error, method).detail.endswith(DOUBT)
        assert kind_of(error, method).retry_after is None
    assert "write" not in problem_of(error, "GET").detail


@pytest.mark.parametrize("error", [QueueTimeout("waited"), QueueFull("full"), PoolError("other")])
def test_what_was_never_sent_may_be_repeated(error: Exception) -> None:
    for method in WRITES:
        assert "may have" not in problem_of(error, method).detail
        assert kind_of(error, method).retry_after


def test_a_line_of_the_log_quotes_no_command() -> None:
    answer = 'not authorized on app to execute command { find: "users", filter: { email: "ada@example.org" } }'
    error = driver.OperationFailure(answer, 13, {"code": 13, "errmsg": answer})
    assert summary(error) == "MongoDB: 13 Unauthorized: not authorized on app to execute command"


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    assert "geheim" not in problem_of(RuntimeError("geheim")).detail


def test_a_duplicate_names_the_field() -> None:
    error = driver.DuplicateKeyError("taken", 11000, {"keyPattern": {"email": 1}})
    assert problem_of(error).detail == "this email is taken"


def test_an_answer_names_some_of_many_wrong_fields() -> None:
    """A body of a megabyte would get one of eight."""
    with pytest.raises(ValidationError) as found:
        NewUser.model_validate({f"field{number}": 1 for number in range(10_000)})
    assert len(_what_is_wrong(found.value)) < 1_000
    problem = errors.problem_of(RequestValidationError(found.value.errors()))
    assert len(problem.extra["errors"]) == errors.MOST_FIELDS
