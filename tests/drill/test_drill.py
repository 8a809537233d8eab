"""The quick drills against a real stack: only what can be counted decides here, times are for `drill.sh` to judge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from drill.catalogue import DRILLS, QUICK
from stack.processes import Process, of_stack

ROOT = Path(__file__).parents[2]
PATHS = {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{ROOT / 'api'}:{ROOT}"}
IN_BOTH = ("primary-killed", "recycling")
"""What the drivers do differently, if anything."""


def drill(*arguments: str, seconds: float = 60, **given: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **given, **PATHS}
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


@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]])
def test_nothing_stays_of_drills_that_are_ended(stacks: Path, signals: list[signal.Signals]) -> None:
    environment = {**os.environ, **PATHS, "TMPDIR": str(stacks)}
    command = [sys.executable, "-m", "drill", "reload"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as drills:
        await_(lambda: serving(stacks))
        for number in signals:
            drills.send_signal(number)
            await_(lambda: drills.poll() is not None or not serving(stacks))
        await_(lambda: drills.poll() is not None)
    assert drills.returncode == (-signal.SIGKILL if signal.SIGKILL in signals else 128 + signal.SIGTERM)
    await_(lambda: not running(stacks) and not list(stacks.iterdir()))


def running(stacks: Path) -> list[Process]:
    return [process for stack in stacks.iterdir() for process in of_stack(stack)]


def serving(stacks: Path) -> bool:
    """Whether the end of a stack has not begun."""
    return any(each.name == "nginx" for each in running(stacks))


def await_(condition: Callable[[], bool], seconds: float = 90) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_all_drills_are_listed_with_what_they_do() -> None:
    listed = drill("--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(DRILLS)
    assert sum(line.endswith("(quick)") for line in listed) == len(QUICK)


def test_an_unknown_drill_is_refused_by_name() -> None:
    done = drill("recycling", "everything")
    assert done.returncode == 2
    assert "everything: allowed are primary-killed, " in done.stderr


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_soak_takes_some_time(minutes: str) -> None:
    done = drill("soak", f"--minutes={minutes}")
    assert done.returncode == 2
    assert f"{minutes}: allowed is a number above 0" in done.stderr
