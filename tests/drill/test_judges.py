"""What the drills would say of a service that loses, invents or hides something: made-up figures, no stack."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pymongo.errors import AutoReconnect

from drill import __main__ as program
from drill import namespaces
from drill.__main__ import Skipped, result
from drill.drills import Bounds, Drill
from drill.figures import Figures, figures
from drill.ledger import Audit, Ledger
from drill.load import BULK, NO_CONNECTION, Kind, Load, Record
from drill.outcome import Outcome
from drill.repeats import _post
from drill.report import BEGIN, COLUMNS, END, refresh, row
from drill.run import run
from drill.service import DrillError, Service
from drill.truth import Witness
from stack.home import StackError

# Writes


def user(key: str, version: int = 1, age: int = 36) -> dict[str, Any]:
    given = {"email": f"{key}@example.org", "name": key, "age": age, "city": "London", "tags": ["drill"]}
    return {"id": key, "_id": key, **given, "version": version, "created_at": "2026-11-23T01:49:00Z"}


def ledger_of(*keys: str) -> Ledger:
    ledger = Ledger()
    for key in keys:
        ledger.created(user(key), user(key))
    return ledger


def change(ledger: Ledger, key: str, answer: dict[str, Any] | None, age: int = 40) -> None:
    ledger.changing(ledger.entries[key], {"age": age})
    ledger.changed(ledger.entries[key], answer)


def doubt_deletion(ledger: Ledger, key: str) -> None:
    ledger.entries[key].deleting = True
    ledger.removed(ledger.entries[key], known=False)


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    ledger = ledger_of("kept", "changed", "deleted", "lost")
    change(ledger, "changed", user("changed", 2, 40))
    ledger.removed(ledger.entries["deleted"], known=True)
    audit = ledger.audit([user("kept"), user("changed"), user("deleted")])
    assert audit.acknowledged == 6
    assert sorted(audit.lost) == ["the creation of lost", "the deletion of deleted", "version 2 of changed"]
    right = ledger.audit([user("kept"), user("changed", 2, 40), user("lost")])
    assert (right.lost, right.invented, ledger.wrong, ledger.taken_back) == ([], [], [], [])


def test_whose_fields_are_anothers_is_lost() -> None:
    ledger = ledger_of("a", "b", "changed", "doubtful")
    change(ledger, "changed", user("changed", 2, 40))
    change(ledger, "doubtful", None)
    emails = {"a": user("a")["email"], "b": user("b")["email"]}
    swapped = [{**user("a"), "email": emails["b"]}, {**user("b"), "email": emails["a"]}]
    assert ledger.audit([*swapped, user("changed", 2), user("doubtful", 2)]).lost == [
        "version 1 of a, which has email 'b@example.org'",
        "version 1 of b, which has email 'a@example.org'",
        "version 2 of changed, which has age 36",
        "version 2 of doubtful, which has age 36",
    ]
    right = [user("a"), user("b"), user("changed", 2, 40)]
    assert ledger.audit([*right, user("doubtful")]).lost == []
    assert ledger.audit([*right, user("doubtful", 2, 40)]).lost == []
    foreign = {**user("b"), "name": "x", "city": None, "tags": []}
    assert ledger.audit([user("a"), foreign, *right[2:], user("doubtful")]).lost == [
        "version 1 of b, which has name 'x', city None, tags []"
    ]


def test_what_nobody_knows_may_be_either_way() -> None:
    ledger = ledger_of("changed", "deleted")
    change(ledger, "changed", None)
    doubt_deletion(ledger, "deleted")
    ledger.unanswered(user("new"))
    ledger.asked(user("open"))
    for documents in ([user("changed")], [user("changed", 2, 40), user("deleted"), user("new"), user("open")]):
        audit = ledger.audit(documents)
        assert (audit.lost, audit.invented, ledger.taken_back) == ([], [], [])
    assert ledger.audit([user("changed", 2, 40), user("new")]).unacknowledged == 3


def test_what_happened_twice_is_a_duplicate() -> None:
    twice = [{**user("a"), "_id": "1"}, {**user("a"), "_id": "2"}]
    assert Ledger().audit(twice).duplicates == ["a"]


def test_what_nobody_asked_for_is_invented() -> None:
    ledger = ledger_of("kept", "doubtful", "deleting")
    change(ledger, "doubtful", None)
    doubt_deletion(ledger, "deleting")
    ledger.refused("refused@example.org", "409")
    ledger.unanswered(user("other"))
    documents = [user("kept", 2), user("doubtful", 3), user("deleting", 2), user("refused"), user("strange")]
    assert ledger.audit([*documents, user("other", age=1)]).invented == [
        "version 2 of kept, which is at 1 at most",
        "version 3 of doubtful, which is at 2 at most",
        "version 2 of deleting, which is at 1 at most",
        "refused@example.org, which was refused",
        "strange@example.org, which nobody was told of",
        "other@example.org, at version 1 age 1",
    ]


def test_what_was_repeated_until_it_was_answered_is_no_silent_write() -> None:
    ledger = Ledger()
    ledger.unanswered(user("a"))
    ledger.created(user("a"), user("a"))
    ledger.asked(user("a"))
    assert ledger.audit([user("a")]).unacknowledged == 0
    ledger.unanswered(user("a"))
    assert ledger.audit([user("a")]).unacknowledged == 0
    assert ledger.audit([]).lost == ["the creation of a"]


# Answers


@pytest.mark.parametrize(
    "answer",
    [
        user("b"),
        user("a", version=2),
        {**user("a"), "tags": []},
        {"id": "a", "version": 1},
        {"version": 1},
        {**user("a"), "created_at": None},
    ],
)
def test_a_create_that_is_answered_with_something_else_is_wrong(answer: dict[str, Any]) -> None:
    ledger = Ledger()
    ledger.asked(user("a"))
    ledger.created(user("a"), answer)
    assert len(ledger.wrong) in (1, 2)


@pytest.mark.parametrize("answer", [user("b", 2, 40), {**user("a", 2, 40), "email": "b@example.org"}, user("a", 2)])
def test_a_change_that_is_answered_with_something_else_is_wrong(answer: dict[str, Any]) -> None:
    ledger = ledger_of("a")
    change(ledger, "a", answer)
    assert ledger.wrong


def test_an_answer_that_contradicts_what_was_acknowledged_is_wrong() -> None:
    ledger = ledger_of("a", "b")
    entry = ledger.entries["a"]
    before = ledger.moment
    change(ledger, "a", user("a", 2, 40))
    ledger.read(entry, before, user("a"))  # it began before the change
    ledger.read(entry, before, user("a", 2, 40))
    assert (ledger.wrong, ledger.taken_back) == ([], [])
    ledger.read(entry, ledger.moment, user("a"))
    ledger.read(entry, before, None)
    ledger.read(entry, before, user("b"))
    ledger.read(entry, before, {**user("a", 2, 40), "email": "b@example.org"})
    ledger.read(entry, before, user("a", 2))
    ledger.read(entry, before, {**user("a", 2, 40), "created_at": "2026-11-23T01:49:00.001Z"})
    ledger.read(entry, before, {})
    ledger.removed(entry, known=True)
    ledger.read(entry, ledger.moment, user("a", 2, 40))
    assert len(ledger.wrong) == 8


def test_a_version_that_no_change_explains_is_wrong() -> None:
    ledger = ledger_of("a", "b", "c")
    ledger.changing(ledger.entries["a"], {"age": 40})  # it's under way
    ledger.read(ledger.entries["a"], ledger.moment, user("a", 2, 40))
    assert ledger.wrong == []
    ledger.read(ledger.entries["b"], ledger.moment, user("b", 2))
    change(ledger, "c", user("c", 3, 40))
    assert len(ledger.wrong) == 2


def test_what_one_read_has_seen_the_next_may_not_take_back() -> None:
    ledger = ledger_of("changed", "deleted")
    changed, deleted = ledger.entries["changed"], ledger.entries["deleted"]
    change(ledger, "changed", None)
    doubt_deletion(ledger, "deleted")
    before = ledger.moment
    ledger.read(changed, before, user("changed"))
    ledger.read(changed, before, user("changed", 2, 40))
    ledger.read(changed, before, user("changed"))  # it began before the other one ended
    ledger.read(deleted, before, user("deleted"))
    ledger.read(deleted, before, None)
    ledger.read(deleted, before, user("deleted"))
    ledger.audit([user("changed", 2, 40)])
    assert (ledger.wrong, ledger.taken_back) == ([], [])
    ledger.read(changed, ledger.moment, user("changed"))
    ledger.read(deleted, ledger.moment, user("deleted"))
    ledger.audit([user("changed"), user("deleted")])
    assert ledger.taken_back == [
        "changed was seen at version 2, and then at version 1",
        "deleted was seen gone, and then at version 1",
        "changed was seen at version 2, and is at version 1 in the end",
        "deleted was seen gone, and is at version 1 in the end",
    ]
    assert ledger.wrong == []


# Lists


def created(number: int) -> dict[str, Any]:
    """One of a series; the second was created in the same moment as the third."""
    second = 2 if number == 3 else number
    return {**user(f"u{number}"), "created_at": f"2026-11-23T01:49:0{second}{'.000' if second % 2 else ''}Z"}


def series(*numbers: int) -> Ledger:
    ledger = Ledger()
    for number in numbers:
        ledger.created(created(number), created(number))
    return ledger


def wrong(ledger: Ledger, numbers: list[int], *, newest_first: bool = False, goes_on: bool = True) -> list[str]:
    page = {"items": [created(number) for number in numbers], "next_cursor": "x" if goes_on else None}
    ledger.listed(ledger.moment, page, limit=3, newest_first=newest_first)
    return ledger.wrong


def test_a_list_has_what_must_be_there_in_its_order() -> None:
    assert wrong(series(4, 1, 3, 2), [1, 2, 3]) == []
    assert wrong(series(4, 1, 3, 2), [4, 3, 2], newest_first=True) == []
    assert wrong(series(1, 2), [2, 1], newest_first=True, goes_on=False) == []
    assert wrong(series(1, 2, 3, 4), [1, 3, 4]) == ["u2 was created, and a list lacks it"]
    assert wrong(series(1, 2, 3, 4), [3, 2, 1], newest_first=True) == ["u4 was created, and a list lacks it"]
    assert wrong(series(1, 2), [1], goes_on=False) == ["u2 was created, and a list lacks it"]
    assert wrong(series(1, 2), [], goes_on=False, newest_first=True) == [
        "u2 was created, and a list lacks it",
        "u1 was created, and a list lacks it",
    ]
    assert len(wrong(series(1, 2, 3), [1, 3, 2])) == 1
    assert len(wrong(series(1, 2, 3), [1, 2, 2])) == 1
    assert len(wrong(series(1, 2, 3), [1, 2])) == 1
    assert len(wrong(series(1, 2, 3, 4), [1, 2, 3, 4])) == 1


def test_a_list_may_lack_what_came_or_went_meanwhile() -> None:
    ledger = series(1, 2, 3)
    since = ledger.moment
    ledger.created(created(4), created(4))
    ledger.entries["u1"].deleting = True
    doubt_deletion(ledger, "u2")
    ledger.listed(since, {"items": [created(3)], "next_cursor": None}, limit=3, newest_first=False)
    ledger.listed(since, {"items": [created(1), created(3), created(4)]}, limit=3, newest_first=False)
    ledger.removed(ledger.entries["u1"], known=True)
    ledger.listed(since, {"items": [created(1), created(3), created(4)]}, limit=3, newest_first=False)
    assert ledger.wrong == []
    ledger.listed(ledger.moment, {"items": [created(1), created(3), created(4)]}, limit=3, newest_first=False)
    assert ledger.wrong == ["u1 was deleted, and is there"]


def test_a_list_shows_no_old_version_and_nobodys_user() -> None:
    ledger = series(1, 2)
    since = ledger.moment
    change(ledger, "u1", {**created(1), "version": 2, "age": 40})
    assert wrong(ledger, [1, 2], goes_on=False) == ["u1 was at version 2, the answer has 1"]
    ledger.wrong.clear()
    ledger.listed(since, {"items": [created(1), created(2)]}, limit=3, newest_first=False)
    ledger.asked(created(3))
    ledger.unanswered(created(4))
    now = {"items": [{**created(1), "version": 2, "age": 40}, created(2), created(3), created(4)]}
    ledger.listed(ledger.moment, now, limit=4, newest_first=False)
    assert ledger.wrong == []
    ledger.unanswered(created(3))
    ledger.audit([{**created(1), "version": 2, "age": 40}, created(2), created(3)])
    assert ledger.taken_back == ["u4@example.org was seen, and isn't there"]
    ledger.refused("u5@example.org", "409")
    ledger.wrong.clear()
    strangers = [{**created(4), "name": "x"}, created(5), created(6)]
    ledger.listed(0, {"items": strangers, "next_cursor": "x"}, limit=3, newest_first=True)
    assert ledger.wrong[:3] == [
        "a list has u4@example.org, at version 1 name 'x'",
        "a list has u5@example.org, which was refused",
        "a list has u6@example.org, which nobody was told of",
    ]


@pytest.mark.parametrize("page", [{}, {"items": {}}, {"items": [{"id": "a"}]}, {"items": ["a"]}])
def test_a_list_of_another_shape_is_wrong(page: dict[str, Any]) -> None:
    ledger = Ledger()
    ledger.listed(0, page, limit=3, newest_first=False)
    assert len(ledger.wrong) == 1


class Answers(Load):
    """A load of which each request is answered so."""

    status = 200
    body: Any = None

    async def _send(self, *_: object, **options: Any) -> tuple[int, Any]:
        return self.status, self.body


@pytest.mark.parametrize("status", [400, 404, 409, 412, 413, 422, 428, 429])
@pytest.mark.parametrize("operation", ["_create", "_bulk", "_update", "_delete", "_list", "_read"])
async def test_a_refusal_that_blames_the_caller_is_wrong(operation: str, status: int) -> None:
    load = Answers("http://nowhere", ledger=ledger_of("a"))
    load.status = status
    await getattr(load, operation)()
    assert len(load.ledger.wrong) == (BULK if operation == "_bulk" else 1)
    assert not load.ledger.entries["a"].busy
    assert not load.ledger.entries["a"].doubtful


@pytest.mark.parametrize("status", [NO_CONNECTION, 503, 504])
@pytest.mark.parametrize("operation", ["_create", "_bulk", "_update", "_delete", "_list", "_read"])
async def test_a_failure_is_no_wrong_answer(operation: str, status: int) -> None:
    load = Answers("http://nowhere", ledger=ledger_of("a"))
    load.status = status
    await getattr(load, operation)()
    assert load.ledger.wrong == []
    assert load.ledger.entries["a"].doubtful == (operation in ("_update", "_delete"))


async def test_items_of_a_bulk_create_are_judged_each() -> None:
    load = Answers("http://nowhere")
    load.status = 207
    items = [{"index": index, "status": 201, "id": f"{index}"} for index in range(BULK)]
    items[1] = {"index": 1, "status": 409}
    items[2] = {"index": 2, "status": 422}
    items[3] = {"index": 3, "status": 503}
    load.body = {"items": items}
    await load._bulk()
    assert len(load.ledger.wrong) == 2
    assert len(load.ledger.entries) == BULK - 3
    load.ledger.wrong.clear()
    load.body = {"items": [{"index": index + (index == 0), "status": 201, "id": f"x{index}"} for index in range(BULK)]}
    await load._bulk()
    assert load.ledger.wrong == ["a bulk create's item 0 is said to be 1"]
    for body in ({"items": load.body["items"][:1]}, {}):
        load.ledger.wrong.clear()
        load.body = body
        await load._bulk()
        assert load.ledger.wrong == [f"a bulk create of {BULK} was answered for {len(body.get('items', []))}"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"x"', b"\xff"])
async def test_a_success_that_nobody_understands_is_wrong(body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=201)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, Load(str(server.make_url("/")), callers=0, ledger=ledger_of("a")) as load:
        await load._create()
        await load._update()
        assert (await _post(load, load._http, user("b"), {}))[0] == NO_CONNECTION
    assert len(load.ledger.wrong) == 3
    assert load.ledger.entries["a"].doubtful
    assert figures(load, 0.0).failed == {"201": 2}


# Times


def test_an_absence_is_the_longest_time_without_a_success() -> None:
    load = Load("http://nowhere")
    load.started, load.ended = 100.0, 110.0

    def record(kind: Kind, began: float, status: int = 200, seconds: float = 0.0) -> Record:
        return Record(kind, kind, began, seconds, status, status == 200)

    load.records = [
        *(record("read", time_) for time_ in (101.0, 102.0, 103.0, 107.0, 109.0)),
        *(record("read", time_, NO_CONNECTION) for time_ in (104.0, 105.0)),
        record("write", 101.0, seconds=5.5),
        record("write", 102.0, 503),
    ]
    load.others[500] += 2
    found = figures(load, trouble=103.5)
    assert (found.requests, found.failed) == (9, {"no answer": 2, "503": 1, "500": 2})
    assert (found.absent_reads, found.absent_writes) == (4.0, 6.5)
    assert found.recovered == 3.0
    assert found.slowest == 5.5


# Outcomes


async def nothing(service: Service, load: Load) -> None:
    """No fault."""


BOUNDS = Bounds(
    failed=3, absent_reads=1, absent_writes=2, recovered=4, counted={"queries": 2}, least={"queries": 1},
    flat={"memory": 1.1},
)  # fmt: skip
LEVEL = [(float(second), 10.0) for second in range(9)]
DRILL = Drill("reload", "nothing fails", nothing, BOUNDS, alerts=frozenset({"Known"}))


def good() -> Outcome:
    witness = Witness(
        "", "", "", slowest_live=0.09, live_asked=90, looks=20, alert_looks=20, alerts={"Known": "firing"}
    )
    found = Figures(1_000, {"503": 3}, 0.9, 1.9, 2.0, 3.9)
    return Outcome(DRILL, "pymongo", found, Audit(500, [], [], 2), [], [], {"queries": 2}, witness, {"memory": LEVEL})


def test_what_is_within_its_bounds_is_neither_broken_nor_late() -> None:
    assert (good().broken(), good().late()) == ([], [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audit": Audit(5, ["the creation of a"], [], 0)}, "1 acknowledged writes lost: the creation of a"),
        ({"audit": Audit(5, [], ["a"], 0)}, "1 duplicates: a"),
        ({"audit": Audit(5, [], [], 0, ["version 3 of a"])}, "1 invented writes: version 3 of a"),
        ({"wrong": ["a is b"]}, "1 wrong answers: a is b"),
        ({"figures": replace(good().figures, failed={"500": 1})}, "1 requests answered 500"),
        ({"figures": replace(good().figures, failed={"503": 4})}, "4 requests failed, allowed are 3"),
        ({"witness": replace(good().witness, live_failures=1)}, "1 of 90 times without liveness, allowed are 0"),
        ({"witness": replace(good().witness, live_asked=0)}, "0 of 0 times without liveness, allowed are 0"),
        ({"witness": replace(good().witness, missed=1)}, "1 of 20 times without metrics, allowed are 0"),
        ({"witness": replace(good().witness, shrunken={"requests"})}, "1 counters that fell: requests"),
        ({"audit": None}, "not audited"),
        ({"error": "there is no primary in the end"}, "there is no primary in the end"),
    ],
)
def test_what_may_never_be_is_broken(change: dict[str, Any], said: str) -> None:
    outcome = replace(good(), **change)
    assert (outcome.broken(), outcome.late()) == ([said], [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"figures": replace(good().figures, absent_reads=1.2)}, "1.2 s without a successful read, allowed are 1"),
        ({"figures": replace(good().figures, absent_writes=2.2)}, "2.2 s without a successful write, allowed are 2"),
        ({"figures": replace(good().figures, recovered=4.2)}, "4.2 s until all was well, allowed are 4"),
        ({"witness": replace(good().witness, slowest_live=0.12)}, "0.12 s for liveness, allowed are 0.1"),
        ({"witness": replace(good().witness, alerts={"False": "pending"})}, "alerts that aren't so: False (pending)"),
        ({"notes": {"queries": 2.1}}, "2.1 queries, allowed are 2"),
        ({"notes": {"queries": 0.9}}, "0.9 queries, needed are 1"),
        ({"witness": replace(good().witness, alerts_missed=1)}, "1 of 20 times without Prometheus"),
        ({"witness": replace(good().witness, alert_looks=0)}, "0 of 0 times without Prometheus"),
        (
            {"series": {"memory": [(time_, value + time_) for time_, value in LEVEL]}},
            "memory: 17 in the last third, 11 in the first",
        ),
        ({"series": {}}, "memory: nan in the last third, nan in the first"),
        ({"witness": replace(good().witness, holes={"up of a"})}, "1 figures of members with a hole: up of a"),
    ],
)
def test_what_depends_on_a_machines_speed_is_late(change: dict[str, Any], said: str) -> None:
    outcome = replace(good(), **change)
    assert (outcome.broken(), outcome.late()) == ([], [said])


def test_what_must_be_counted_and_was_not_is_late() -> None:
    assert replace(good(), notes={}).late() == ["inf queries, allowed are 2", "0 queries, needed are 1"]


def test_figures_for_machines_are_json() -> None:
    assert json.loads(json.dumps(good().as_json()))["liveness_failures"] == [0, 90]


def test_without_an_audit_nothing_is_said_of_losses() -> None:
    outcome = replace(good(), audit=None)
    assert "not audited" in row(outcome)
    found = json.loads(json.dumps(outcome.as_json()))
    assert (found["audited"], found["lost"], found["acknowledged"]) == (False, None, None)


@pytest.mark.parametrize(
    ("outcomes", "skipped", "status"),
    [
        ([good()], [], 0),
        ([good()], [Skipped("herd", "pymongo", "no", named=False)], 0),
        ([good()], [Skipped("herd", "pymongo", "no", named=True)], 1),
        ([good(), replace(good(), wrong=["a is b"])], [], 1),
        ([replace(good(), notes={"queries": 3}), good()], [], 1),
    ],
)
def test_the_status_says_whether_all_was_tried_and_well(
    outcomes: list[Outcome], skipped: list[Skipped], status: int
) -> None:
    assert result(outcomes, skipped) == status


@pytest.mark.parametrize(
    ("found", "error", "status", "drills"),
    [
        ([good()], None, 0, ["reload"]),
        ([replace(good(), audit=None)], None, 1, ["reload"]),
        ([Skipped("herd", "pymongo", "no", named=True)], None, 1, ["herd"]),
        ([good(), Skipped("herd", "pymongo", "no", named=False)], None, 0, ["reload", "herd"]),
        ([good()], DrillError("it doesn't end"), 1, ["reload"]),
        ([], OSError("no room"), 1, []),
        ([], KeyboardInterrupt(), 130, []),
    ],
)
def test_the_file_has_what_was_found_now_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    found: list[Outcome | Skipped],
    error: BaseException | None,
    status: int,
    drills: list[str],
) -> None:
    def try_(_: str, __: Sequence[str], outcomes: list[Outcome], skipped: list[Skipped], *, named: bool) -> None:
        assert not file.exists()
        outcomes += [each for each in found if isinstance(each, Outcome)]
        skipped += [each for each in found if isinstance(each, Skipped)]
        if error:
            raise error

    file = tmp_path / "outcomes.json"
    file.write_text("of other drills")
    monkeypatch.setattr(program, "_run", try_)
    monkeypatch.setattr(namespaces, "enter", lambda _: None)
    monkeypatch.setattr(namespaces, "inside", lambda: False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert program.main(["reload", "--json", str(file)]) == status
    outcomes = json.loads(file.read_text())
    assert [outcome["drill"] for outcome in outcomes] == drills
    assert [outcome.get("skipped") for outcome in outcomes if outcome["drill"] == "herd"] == ["no"] * drills.count(
        "herd"
    )


# Metrics and alerts

METRICS = """# TYPE requests_total counter
requests_total{{worker="1"}} {first}
requests_total{{worker="2"}} {second}
# TYPE taken_seconds histogram
taken_seconds_bucket{{le="1.0"}} {bucket}
taken_seconds_bucket{{le="+Inf"}} {count}
taken_seconds_count {count}
taken_seconds_sum {sum}
# TYPE open gauge
open {open}
"""
VALUES = {"first": 5.0, "second": 5.0, "bucket": 3.0, "count": 4.0, "sum": 7.5, "open": 9.0}


@pytest.mark.parametrize(
    ("then", "fell"),
    [
        ({"first": 6.0, "sum": 7.5 - 1e-12, "open": 1.0}, set()),
        ({"first": 3.0, "second": 9.0}, {"requests_total{worker=1}"}),
        ({"bucket": 2.0}, {"taken_seconds_bucket{le=1.0}"}),
        ({"count": 3.0, "bucket": 3.0}, {"taken_seconds_bucket{le=+Inf}", "taken_seconds_count{}"}),
        ({"sum": 7.0}, {"taken_seconds_sum{}"}),
    ],
)
def test_each_series_goes_on_by_itself(then: dict[str, float], fell: set[str]) -> None:
    witness = Witness("", "", "")
    witness.note_figures(METRICS.format(**VALUES), 0.0)
    witness.note_figures(METRICS.format(**VALUES | then), 0.5)
    assert witness.shrunken == fell


def test_a_series_that_is_gone_has_fallen() -> None:
    witness = Witness("", "", "")
    witness.note_figures(METRICS.format(**VALUES), 0.0)
    witness.note_figures("".join(line for line in METRICS.format(**VALUES).splitlines(True) if '"2"' not in line), 0.5)
    assert witness.shrunken == {"requests_total{worker=2}"}


def alerts(**states: str) -> dict[frozenset[tuple[str, str]], str]:
    """By `NAME_INSTANCE`."""
    named = {tuple(name.split("_")): state for name, state in states.items()}
    return {frozenset({("alertname", name), ("member", each)}): state for (name, each), state in named.items()}


def test_an_alert_from_before_is_muted_until_it_ends() -> None:
    witness = Witness("", "", "")
    for active in (None, alerts(Old_a="firing"), alerts(Old_a="firing"), None, alerts(Old_a="firing")):
        witness.note_alerts(active)
    assert (witness.alerts, witness.alerts_missed, witness.alert_looks) == ({}, 2, 5)
    witness.note_alerts({})
    witness.note_alerts(alerts(Old_a="pending"))
    assert witness.alerts == {"Old": "pending"}


def test_what_an_earlier_drill_was_allowed_may_echo() -> None:
    now = time.monotonic()
    names = ("ErrorBudgetBurnsFast", "PoolTimeouts", "NoPrimary")
    witness = Witness("", "", "", {**dict.fromkeys(names, now - 3600), "WorkerRestarts": now - 600, "NoPrimary": now})
    witness.note_alerts({})
    witness.note_alerts(alerts(ErrorBudgetBurnsFast_a="firing", PoolTimeouts_a="pending", WorkerRestarts_a="firing"))
    witness.note_alerts(alerts(LatencyBudgetBurnsFast_a="pending", NoPrimary_a="pending"))
    assert witness.alerts == dict.fromkeys(("PoolTimeouts", "LatencyBudgetBurnsFast", "NoPrimary"), "pending")


def test_the_worst_of_an_alerts_instances_counts_each_by_itself() -> None:
    witness = Witness("", "", "")
    witness.note_alerts(alerts(Old_a="firing"))
    witness.note_alerts(alerts(Old_a="firing", Old_b="pending", New_a="firing", New_b="pending"))
    assert witness.alerts == {"Old": "pending", "New": "firing"}


def test_where_what_was_asked_is_killed_some_looks_may_get_no_answer() -> None:
    bounds = replace(BOUNDS, unseen=1, live=math.inf)
    seen = replace(good().witness, live_failures=1, missed=1, slowest_live=5.0)
    outcome = replace(good(), drill=replace(DRILL, bounds=bounds), witness=seen)
    assert (outcome.broken(), outcome.late()) == ([], [])
    assert replace(outcome, witness=replace(seen, live_failures=2)).broken()


# What fails by itself


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DrillError("the stack doesn't start"), "the stack doesn't start"),
        (StackError("one of api does not end"), "one of api does not end"),
        (AutoReconnect("gone"), "AutoReconnect: gone"),
        (subprocess.TimeoutExpired("up", 240), "TimeoutExpired: Command 'up' timed out after 240 seconds"),
        (subprocess.CalledProcessError(1, "ip"), "CalledProcessError: Command 'ip' returned non-zero exit status 1."),
        (ValueError("min() arg is an empty sequence"), "ValueError: min() arg is an empty sequence"),
    ],
)
async def test_what_a_drill_fails_with_is_in_its_outcome(tmp_path: Path, error: Exception, said: str) -> None:
    class Broken(Service):
        def up(self, **_: str) -> None:
            raise error

    outcome = await run(DRILL, Broken(tmp_path))
    assert (outcome.error, outcome.audit) == (said, None)
    assert outcome.broken()


def test_a_program_that_does_not_run_gets_no_signal(tmp_path: Path) -> None:
    """To the system, 0 is the group of whoever sends it."""
    with pytest.raises(DrillError, match="doesn't run"):
        Service(tmp_path).signal(signal.SIGURG, 0)


# The page


def test_a_report_keeps_what_it_says_of_other_drills(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}{END}\nafter\n")
    unbound = replace(DRILL, bounds=replace(BOUNDS, flat={}))
    first = replace(good(), drill=unbound, series={}, notes={"queries": 2, "workers replaced": 3.0})
    refresh([first, replace(first, driver="motor")], page)
    refresh([replace(first, notes={"queries": 2}, drill=replace(unbound, name="herd"))], page)
    refresh([replace(first, notes={"queries": 2}, wrong=["a is b"])], page)
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows[0] == list(COLUMNS)
    assert [cells[:2] for cells in rows[1:]] == [["reload", "pymongo"], ["reload", "motor"], ["herd", "pymongo"]]
    assert [line for line in lines if line.startswith("- ")] == [
        "- `reload` (pymongo): 2 queries. Missed: 1 wrong answers: a is b",
        "- `reload` (motor): 2 queries; 3 workers replaced",
        "- `herd` (pymongo): 2 queries",
    ]
