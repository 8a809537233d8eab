"""The table from exceptions to answers: every row, and the order where classes overlap."""

from __future__ import annotations

import pymongo.errors as driver
import pytest

from app.errors import kind_of, problem_of
from sluice.errors import DeadlineExceeded, PoolUnavailable, QueueFull, QueueTimeout


def labelled(error: driver.PyMongoError, label: str) -> driver.PyMongoError:
    error._add_error_label(label)
    return error


def bulk(*codes: int) -> driver.BulkWriteError:
    return driver.BulkWriteError({"writeErrors": [{"index": n, "code": code} for n, code in enumerate(codes)]})


@pytest.mark.parametrize(
    ("error", "status", "name", "retry_after"),
    [
        (QueueFull("full"), 503, "queue-full", 1),
        (QueueTimeout("waited"), 503, "queue-timeout", 1),
        (driver.WaitQueueTimeoutError("waited"), 503, "queue-timeout", 1),
        (PoolUnavailable("no client"), 503, "pool-unavailable", 5),
        (driver.ServerSelectionTimeoutError("none"), 503, "no-server", 5),
        (driver.NotPrimaryError("stepped down"), 503, "not-primary", 2),
        (driver.NetworkTimeout("silence"), 504, "network-timeout", None),
        (driver.AutoReconnect("reset"), 503, "connection-lost", 1),
        (driver.ConnectionFailure("refused"), 503, "connection-lost", 1),
        (driver.ExecutionTimeout("too long", 50), 504, "deadline-exceeded", None),
        (DeadlineExceeded("used up"), 504, "deadline-exceeded", None),
        (driver.DuplicateKeyError("taken", 11000), 409, "duplicate", None),
        (bulk(11000, 11000), 409, "duplicate", None),
        (bulk(11000, 2), 500, "internal-server-error", None),
        (driver.WTimeoutError("waiting", 64), 504, "write-concern-timeout", None),
        (driver.WriteConcernError("stepped down", 10107), 503, "not-primary", 2),
        (driver.OperationFailure("No keys found for HMAC", 211), 503, "not-primary", 2),
        (driver.WriteConcernError("odd", 100), 500, "internal-server-error", None),
        (labelled(driver.OperationFailure("busy", 462), "SystemOverloadedError"), 503, "overloaded", 1),
        (
            labelled(driver.OperationFailure("conflict", 112), "TransientTransactionError"),
            503,
            "transaction-aborted",
            1,
        ),
        (driver.WriteError("schema", 121), 422, "document-refused", None),
        (bulk(121, 11000), 422, "document-refused", None),
        (driver.DocumentTooLarge("17 MB"), 413, "document-too-large", None),
        (driver.InvalidOperation("Cannot use AsyncMongoClient after close"), 503, "pool-closed", 1),
        (driver.InvalidOperation("some misuse"), 500, "internal-server-error", None),
        (driver.OperationFailure("auth", 18), 500, "internal-server-error", None),
        (driver.ConfigurationError("wrong"), 500, "internal-server-error", None),
        (ZeroDivisionError(), 500, "internal-server-error", None),
    ],
)
def test_each_exception_has_its_answer(error: Exception, status: int, name: str, retry_after: int | None) -> None:
    kind = kind_of(error)
    assert (kind.status, kind.type, kind.retry_after) == (status, f"/problems/{name}", retry_after)


def test_a_lost_connection_invites_to_repeat_only_what_is_safe() -> None:
    assert kind_of(driver.AutoReconnect("reset"), "POST").retry_after is None
    assert kind_of(driver.AutoReconnect("reset"), "GET").retry_after == 1


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("the request's 300 ms are used up"),
        driver.ExecutionTimeout("too long", 50),
        driver.NetworkTimeout("silence"),
        driver.AutoReconnect("reset"),
    ],
)
def test_who_wrote_is_told_that_it_may_have_happened(error: Exception) -> None:
    for method in ("POST", "PATCH", "DELETE"):
        assert problem_of(error, method).detail.endswith("; a write may have happened")
    assert "write" not in problem_of(error, "GET").detail
    assert "may have" not in problem_of(QueueTimeout("waited"), "POST").detail


def test_an_unexpected_error_tells_nothing_of_itself() -> None:
    assert "geheim" not in problem_of(RuntimeError("geheim")).detail


def test_a_duplicate_names_the_field() -> None:
    error = driver.DuplicateKeyError("taken", 11000, {"keyPattern": {"email": 1}})
    assert problem_of(error).detail == "this email is taken"
