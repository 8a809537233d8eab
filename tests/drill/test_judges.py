"""What the drills would say of a service that loses, invents or hides something: made-up figures, no stack."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drill.drills import Bounds, Drill
from drill.figures import Figures, figures
from drill.ledger import Audit, Ledger
from drill.load import BULK, NO_CONNECTION, Kind, Load, Record
from drill.outcome import Outcome
from drill.report import BEGIN, COLUMNS, END, refresh
from drill.service import Service
from drill.truth import Witness

# Writes


def user(key: str, version: int = 1) -> dict[str, Any]:
    return {"id": key, "_id": key, "email": f"{key}@example.org", "name": key, "version": version}


def ledger_of(*keys: str) -> Ledger:
    ledger = Ledger()
    for key in keys:
        ledger.created(f"{key}@example.org", user(key))
    return ledger


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    ledger = ledger_of("kept", "changed", "deleted", "lost")
    ledger.changed(ledger.entries["changed"], 2)
    ledger.removed(ledger.entries["deleted"], known=True)
    audit = ledger.audit([user("kept"), user("changed"), user("deleted")])
    assert audit.acknowledged == 6
    assert sorted(audit.lost) == ["the creation of lost", "the deletion of deleted", "version 2 of changed"]
    right = ledger.audit([user("kept"), user("changed", 2), user("lost")])
    assert (right.lost, right.invented, ledger.wrong) == ([], [], [])


def test_what_nobody_knows_may_be_either_way() -> None:
    ledger = ledger_of("changed", "deleted")
    ledger.changed(ledger.entries["changed"], None)
    ledger.entries["deleted"].deleting = True
    ledger.removed(ledger.entries["deleted"], known=False)
    ledger.unanswered("new@example.org")
    for documents in ([user("changed")], [user("changed", 2), user("deleted"), user("new")]):
        audit = ledger.audit(documents)
        assert (audit.lost, audit.invented) == ([], [])
    assert ledger.audit([user("changed", 2), user("new")]).unacknowledged == 3


def test_what_happened_twice_is_a_duplicate() -> None:
    twice = [{**user("a"), "_id": "1"}, {**user("a"), "_id": "2"}]
    assert Ledger().audit(twice).duplicates == ["a"]


def test_what_nobody_asked_for_is_invented() -> None:
    ledger = ledger_of("kept", "doubtful", "deleting")
    ledger.changed(ledger.entries["doubtful"], None)
    ledger.entries["deleting"].deleting = True
    ledger.removed(ledger.entries["deleting"], known=False)
    ledger.refused("refused@example.org", "409")
    documents = [user("kept", 2), user("doubtful", 3), user("deleting", 2), user("refused"), user("strange")]
    assert ledger.audit(documents).invented == [
        "version 2 of kept, which is at 1 at most",
        "version 3 of doubtful, which is at 2 at most",
        "version 2 of deleting, which is at 1 at most",
        "refused@example.org, which was refused",
        "strange@example.org, which nobody was told of",
    ]


def test_what_was_repeated_until_it_was_answered_is_no_silent_write() -> None:
    ledger = Ledger()
    ledger.unanswered("a@example.org")
    ledger.created("a@example.org", user("a"))
    assert ledger.audit([user("a")]).unacknowledged == 0


# Answers


def test_an_answer_that_contradicts_what_was_acknowledged_is_wrong() -> None:
    ledger = ledger_of("a", "b")
    entry = ledger.entries["a"]
    before = ledger.promise(entry)
    ledger.changed(entry, 2)
    ledger.read(entry, before, user("a"))  # it began before the change
    ledger.read(entry, before, user("a", 2))
    assert ledger.wrong == []
    ledger.read(entry, ledger.promise(entry), user("a"))
    ledger.read(entry, before, None)
    ledger.read(entry, before, user("b"))
    ledger.read(entry, before, {**user("a", 2), "email": "b@example.org"})
    ledger.removed(entry, known=True)
    ledger.read(entry, ledger.promise(entry), user("a", 2))
    assert len(ledger.wrong) == 5


def test_a_version_that_no_change_explains_is_wrong() -> None:
    ledger = ledger_of("a", "b", "c")
    ledger.entries["a"].busy = True  # its change is under way
    ledger.read(ledger.entries["a"], ledger.promise(ledger.entries["a"]), user("a", 2))
    assert ledger.wrong == []
    ledger.read(ledger.entries["b"], ledger.promise(ledger.entries["b"]), user("b", 2))
    ledger.changed(ledger.entries["c"], 3)
    assert len(ledger.wrong) == 2


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
    load.body = {"items": [{"index": 1, "status": 201, "id": "x"}]}
    await load._bulk()
    assert load.ledger.wrong == [
        "a bulk create's item 0 is said to be 1",
        f"a bulk create of {BULK} was answered for 1",
    ]


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
    found = figures(load, trouble=103.5)
    assert (found.requests, found.failed) == (9, {"no answer": 2, "503": 1})
    assert (found.absent_reads, found.absent_writes) == (4.0, 6.5)
    assert found.recovered == 3.0
    assert found.slowest == 5.5


# Outcomes


async def nothing(service: Service, load: Load) -> None:
    """No fault."""


BOUNDS = Bounds(failed=3, absent_reads=1, absent_writes=2, recovered=4, counted={"queries": 2}, flat={"memory": 1.1})
LEVEL = [(float(second), 10.0) for second in range(9)]
DRILL = Drill("reload", "nothing fails", nothing, BOUNDS, alerts=frozenset({"Known"}))


def good() -> Outcome:
    witness = Witness("", "", "", slowest_live=0.09, live_asked=90, looks=20, alerts={"Known": "firing"})
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
        ({"notes": {}}, "inf queries, allowed are 2"),
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


def test_figures_for_machines_are_json() -> None:
    assert json.loads(json.dumps(good().as_json()))["liveness_failures"] == [0, 90]


def test_where_what_was_asked_is_killed_some_looks_may_get_no_answer() -> None:
    bounds = replace(BOUNDS, unseen=1, live=math.inf)
    seen = replace(good().witness, live_failures=1, missed=1, slowest_live=5.0)
    outcome = replace(good(), drill=replace(DRILL, bounds=bounds), witness=seen)
    assert (outcome.broken(), outcome.late()) == ([], [])
    assert replace(outcome, witness=replace(seen, live_failures=2)).broken()


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
