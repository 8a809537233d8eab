"""The quick drills against a real stack: only what can be counted decides here, times are for `drill.sh` to judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from drill.catalogue import DRILLS, QUICK
from drill.figures import figures
from drill.ledger import Ledger
from drill.load import NO_CONNECTION, Kind, Load, Record

ROOT = Path(__file__).parents[2]
IN_BOTH = ("primary-killed", "recycling")
"""What the drivers do differently, if anything."""


def drill(*arguments: str, seconds: float = 60, **given: str) -> subprocess.CompletedProcess[str]:
    paths = [ROOT / "api", ROOT]
    environment = {**os.environ, **given, "PYTHONSAFEPATH": "1", "PYTHONPATH": ":".join(map(str, paths))}
    command = [sys.executable, "-m", "drill", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)


class Overheard:
    """The secrets of the stacks that are made in a folder while this is entered."""

    def __init__(self, folder: Path) -> None:
        self.secrets: set[str] = set()
        self._folder = folder
        self._stopped = threading.Event()
        self._listener = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        while not self._stopped.wait(0.5):
            for path in self._folder.glob("*/secrets/*"):
                with suppress(FileNotFoundError):  # its stack is gone
                    self.secrets |= {path.read_text()} - {""}  # it's being written

    def __enter__(self) -> Overheard:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._listener.join()


@pytest.fixture
def stacks() -> Iterator[Path]:
    """Where drills make theirs, which nginx's workers have to reach."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-drills-"))
    folder.chmod(0o755)
    yield folder
    folder.rmdir()  # nothing is left in it


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["pymongo", "motor"])
def test_the_quick_drills_lose_nothing_answer_nothing_wrong_and_tell_no_secret(
    stacks: Path, tmp_path: Path, driver: str
) -> None:
    names = QUICK if driver == "pymongo" else IN_BOTH
    json_file = tmp_path / "outcomes.json"
    with Overheard(stacks) as overheard:
        done = drill(*names, "--driver", driver, "--json", str(json_file), seconds=580, TMPDIR=str(stacks))
    assert done.returncode in (0, 1), done.stderr
    assert len(overheard.secrets) == 6  # a key, three passwords, two connection strings
    said = done.stdout + done.stderr + json_file.read_text()
    for secret in overheard.secrets:
        assert secret not in said
        assert (secret.partition("://")[2].partition("@")[0] or secret) not in said
    outcomes: list[dict[str, Any]] = json.loads(json_file.read_text())
    assert [outcome["drill"] for outcome in outcomes] == list(names)
    assert {outcome["drill"]: outcome["broken"] for outcome in outcomes if outcome["broken"]} == {}
    for outcome in outcomes:
        assert outcome["acknowledged"] > 100, outcome["drill"]


def test_all_drills_are_listed_with_what_they_do() -> None:
    listed = drill("--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(DRILLS)
    assert sum(line.endswith("(quick)") for line in listed) == len(QUICK)


def test_an_unknown_drill_is_refused_by_name() -> None:
    done = drill("recycling", "everything")
    assert done.returncode == 2
    assert "everything: allowed are primary-killed, " in done.stderr


# What it would say of a service that loses or invents something


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
    ledger.removed(ledger.entries["deleted"], True)
    audit = ledger.audit([user("kept"), user("changed"), user("deleted")])
    assert audit.acknowledged == 6
    assert sorted(audit.lost) == ["the creation of lost", "the deletion of deleted", "version 2 of changed"]
    assert ledger.audit([user("kept"), user("changed", 2), user("lost")]).lost == []


def test_what_nobody_knows_may_be_either_way() -> None:
    ledger = ledger_of("changed", "deleted")
    ledger.changed(ledger.entries["changed"], None)
    ledger.entries["deleted"].deleting = True
    ledger.removed(ledger.entries["deleted"], None)
    ledger.unanswered("new@example.org")
    for documents in ([user("changed")], [user("changed", 2), user("deleted"), user("new")]):
        assert ledger.audit(documents).lost == []
    assert ledger.audit([user("changed", 2), user("new")]).unacknowledged == 3


def test_what_happened_twice_is_a_duplicate() -> None:
    twice = [{**user("a"), "_id": "1"}, {**user("a"), "_id": "2"}]
    assert Ledger().audit(twice).duplicates == ["a"]


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
    ledger.removed(entry, True)
    ledger.read(entry, ledger.promise(entry), user("a", 2))
    assert len(ledger.wrong) == 4


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
