"""The quick drills against a real stack: only what can be counted decides here, times are for `drill.sh` to judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drill.catalogue import DRILLS, QUICK

ROOT = Path(__file__).parents[2]
IN_BOTH = ("primary-killed", "recycling")
"""What the drivers do differently, if anything."""


def drill(*arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    paths = [ROOT / "api", ROOT]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": ":".join(map(str, paths))}
    command = [sys.executable, "-m", "drill", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["pymongo", "motor"])
def test_the_quick_drills_lose_nothing_and_answer_nothing_wrong(tmp_path: Path, driver: str) -> None:
    names = QUICK if driver == "pymongo" else IN_BOTH
    done = drill(*names, "--driver", driver, "--json", str(tmp_path / "outcomes.json"), seconds=580)
    assert done.returncode in (0, 1), done.stderr
    outcomes: list[dict[str, Any]] = json.loads((tmp_path / "outcomes.json").read_text())
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
