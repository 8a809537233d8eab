"""Problem lines: a few of each kind, and how many more there were."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.observe import log_limit, logs
from app.observe.access_log import AccessLog
from app.observe.log_limit import MOST, LogLimit
from app.settings.model import Settings
from sluice.statistics.operations import Operations
from tests.conftest import until

Make = Callable[..., Settings]


@pytest.fixture
def lines(tmp_path: Path, settings: Make) -> Callable[[], list[str]]:
    """What was logged so far, without the head of each line."""
    logs.set_up(settings(log_file=tmp_path / "api.log"))
    return lambda: [line.partition(" - ")[2] for line in (tmp_path / "api.log").read_text().splitlines()]


def finish() -> None:
    """End the window, as its timer and the end of the process do."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def test_a_storm_of_one_kind_is_logged_in_part_and_counted(lines: Callable[[], list[str]]) -> None:
    access, scope = AccessLog("problems"), {"method": "GET", "path": "/users"}
    for _ in range(1_000):
        access.write(scope, 503, 0.001)
    access.write(scope, 500, 0.001)
    access.write({"method": "POST", "path": "/users"}, 503, 0.001)
    assert len(lines()) == MOST + 2
    assert lines()[-2:] == ["GET /users (none) answered 500 in 0.001 s", "POST /users (none) answered 503 in 0.001 s"]
    finish()
    assert lines()[-1] == f"{1_000 - MOST} more of these lines in 10 s were left out: GET (none) answered 503"
    finish()
    assert len(lines()) == MOST + 3


def record(message: str, *arguments: object, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("x", logging.ERROR, "x.py", 1, message, arguments, exc_info)


def test_nothing_that_a_traceback_saw_is_held_until_the_next_problem() -> None:
    class Body: ...

    limit = LogLimit(lambda _: None)

    def fail() -> weakref.ref[Body]:
        body = Body()
        try:
            raise RuntimeError("one of a kind")
        except RuntimeError as error:
            limit.filter(record("failed: %s", error, exc_info=sys.exc_info()))
        return weakref.ref(body)

    held = fail()
    gc.collect()
    assert held() is None


def test_a_line_whose_arguments_do_not_fit_is_limited_too() -> None:
    told: list[logging.LogRecord] = []
    limit = LogLimit(told.append)
    for _ in range(MOST + 1):
        limit.filter(record("%d of", "three", "four"))
    limit.flush()
    assert told[0].getMessage() == "1 more of these lines in 10 s were left out: %d of"


def test_slow_operations_are_limited_by_operation(lines: Callable[[], list[str]]) -> None:
    operations = Operations(0.0, [])
    for name in ("find", "insert_one"):
        for _ in range(MOST + 5):
            with operations.measure("users", name):
                pass
    finish()
    assert len(lines()) == 2 * MOST + 2
    assert lines()[-1] == "5 more of these lines in 10 s were left out: users.insert_one"


async def test_the_end_of_a_storm_is_told_although_nothing_follows(
    lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limit, "WINDOW", 0.5)
    for number in range(MOST + 3):
        logging.getLogger("app").warning("member %d is away", number)
    await until(lambda: len(lines()) > MOST, 10)
    assert lines()[MOST:] == ["3 more of these lines in 0 s were left out: member 0 is away"]


def test_exceptions_of_one_place_are_told_apart(lines: Callable[[], list[str]]) -> None:
    for error in [ValueError("a")] * (MOST + 1) + [KeyError("b")]:
        try:
            raise error
        except Exception:
            logging.getLogger("app").exception("failed")
    finish()
    written = [line for line in lines() if line]
    assert written.count("failed") == MOST + 1
    assert written[-1] == "1 more of these lines in 10 s were left out: ValueError"


def test_what_is_no_problem_and_what_was_asked_for_in_whole_is_not_limited(lines: Callable[[], list[str]]) -> None:
    every = AccessLog("all")
    for _ in range(3 * MOST):
        every.write({"method": "GET", "path": "/users"}, 503, 0.001)
        logging.getLogger("app").info("news")
    finish()
    assert len(lines()) == 6 * MOST


def test_kinds_without_end_are_counted_as_one(lines: Callable[[], list[str]]) -> None:
    for number in range(2 * log_limit.MOST_KINDS):
        logging.getLogger("app").warning("odd", extra={"kind": str(number)})
    finish()
    assert len(lines()) == log_limit.MOST_KINDS + MOST + 1
