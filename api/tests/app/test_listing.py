"""Cursors: what is encoded comes back, and nothing else is taken."""

from __future__ import annotations

import base64
import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import ObjectId
from hypothesis import example, given
from hypothesis import strategies as st

from app.http.problems import Problem
from app.users.listing import Listing

ID = ObjectId("66f1a2b3c4d5e6f7a8b9c0d1")


def encoded(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def after(sort: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternatives of the page after this document."""
    cursor = Listing(sort=sort).next_cursor({"_id": ID, **document})  # type: ignore[arg-type]
    query = Listing(sort=sort, cursor=cursor).query()  # type: ignore[arg-type]
    alternatives: list[dict[str, Any]] = query["$and"][1]["$or"]
    return alternatives


def test_a_cursor_continues_after_the_last_document() -> None:
    assert after("name", {"name": "Ada"}) == [{"name": "Ada", "_id": {"$gt": ID}}, {"name": {"$gt": "Ada"}}]
    assert after("-name", {"name": "Ada"}) == [{"name": "Ada", "_id": {"$lt": ID}}, {"name": {"$lt": "Ada"}}]


@pytest.mark.parametrize("zone", [None, UTC])
def test_a_time_keeps_its_milliseconds(zone: Any) -> None:
    moment = datetime(2026, 11, 23, 1, 49, 0, 123_000, zone)
    assert after("created_at", {"created_at": moment})[0]["created_at"] == moment.replace(tzinfo=UTC)


def test_users_without_an_age_come_first_and_are_left_behind() -> None:
    assert after("age", {"age": None}) == [{"age": None, "_id": {"$gt": ID}}, {"age": {"$gt": -1}}]
    assert after("age", {"age": 7}) == [{"age": 7, "_id": {"$gt": ID}}, {"age": {"$gt": 7}}]


def test_users_without_an_age_come_last_the_other_way_round() -> None:
    assert after("-age", {"age": 7}) == [{"age": 7, "_id": {"$lt": ID}}, {"age": {"$lt": 7}}, {"age": None}]
    assert after("-age", {"age": None}) == [{"age": None, "_id": {"$lt": ID}}]


@given(st.text(max_size=200))
def test_any_name_comes_back(name: str) -> None:
    assert after("name", {"name": name})[0]["name"] == name


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀", "\x01"])
def test_the_longest_name_fits_into_a_cursor(letter: str) -> None:
    assert after("name", {"name": letter * 200})[0]["name"] == letter * 200


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "not base64!",
        "AAAA",
        encoded(),
        encoded("name"),
        encoded("-name", "Ada", str(ID)),
        encoded("name", 7, str(ID)),
        encoded("name", {"$gt": ""}, str(ID)),
        encoded("name", "Ada", "no id"),
        encoded("name", "Ada", 5),
        encoded("name", "Ada", str(ID), "more"),
        encoded("name", "\ud800", str(ID)),
        encoded("name", "Ada\udfff", str(ID)),
        encoded("name", ["Ada"], str(ID)),
        encoded("name", "Ada", "６" * 24),
        encoded("name", "Ada", f"{ID}\n"),
        encoded("name", "Ada", str(ID).upper()[:23]),
        base64.urlsafe_b64encode(b"[" * 1000).decode(),
        base64.urlsafe_b64encode(b'{"a":' * 300).decode(),
        base64.urlsafe_b64encode(json.dumps(["name", "Ada", str(ID)]).encode("utf-16")).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b'["name","\xed\xa0\x80","%s"]' % str(ID).encode()).decode(),
    ],
)
def test_a_bad_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Problem) as problem:
        Listing(sort="name", cursor=cursor).query()
    assert problem.value.kind.status == 422


@pytest.mark.parametrize("value", [2**63, 2**70, -(2**70), 1.5, math.nan, math.inf, True, "7", [7], {"$gt": 0}])
def test_an_age_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(Problem) as problem:
        Listing(sort="age", cursor=encoded("age", value, str(ID))).query()
    assert problem.value.kind.status == 422


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(str(ID)), max_size=4))
@example(["age", 2**70, str(ID)])
def test_what_a_cursor_lets_through_can_be_asked_for(parts: list[Any]) -> None:
    for sort in ("created_at", "name", "-age"):
        with suppress(Problem):  # the only exception
            bson.encode(Listing(sort=sort, cursor=encoded(sort, *parts[1:])).query())


@pytest.mark.parametrize("value", [True, 2**70, math.nan, math.inf, 1e300, 10**30, -(10**30), "now", None])
def test_a_time_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(Problem):
        Listing(sort="created_at", cursor=encoded("created_at", value, str(ID))).query()


@given(st.text(max_size=60))
def test_no_cursor_breaks_anything(cursor: str) -> None:
    with pytest.raises(Problem):
        Listing(cursor=cursor).query()


def test_filters_are_put_together() -> None:
    listing = Listing(email="ADA@Example.org", city="Paris", tag="x", min_age=3, max_age=9)
    assert listing.query() == {
        "email": "ada@example.org",
        "city": "Paris",
        "tags": "x",
        "age": {"$gte": 3, "$lte": 9},
    }
