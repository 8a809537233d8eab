"""Usage: drill.sh [NAME…] [--driver DRIVER] [--json FILE]; see `--help`."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from drill import namespaces, soak
from drill.catalogue import DRILLS, QUICK
from drill.outcome import Outcome
from drill.report import DRIVERS, refresh, table
from drill.run import run
from drill.service import DrillError, Service

STOPS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Skipped:
    """A drill that couldn't be tried here. `named`: somebody asked for it."""

    name: str
    driver: str
    why: str
    named: bool

    def as_json(self) -> dict[str, str]:
        return {"drill": self.name, "driver": self.driver, "skipped": self.why}


def main(arguments: Sequence[str] | None = None) -> int:
    given = _arguments(arguments)
    if given.list:
        width = max(map(len, DRILLS))
        for drill in DRILLS.values():
            print(f"{drill.name:{width}}  {drill.about}{' (quick)' if drill.quick else ''}")
        return 0
    namespaces.enter(sys.argv[1:] if arguments is None else arguments)
    if namespaces.inside():
        namespaces.furnish()
    for number in STOPS:
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that everything that was started ends
    DRILLS["soak"] = soak.drill(given.minutes)
    names = given.names or (QUICK if given.quick else list(DRILLS))
    outcomes: list[Outcome] = []
    skipped: list[Skipped] = []
    failed = 0
    if given.json:
        given.json.unlink(missing_ok=True)  # what it said is of other drills
    try:
        for driver in given.driver or ["pymongo"]:
            _run(driver, names, outcomes, skipped, named=bool(given.names))
    except (DrillError, OSError, subprocess.SubprocessError) as error:
        print(f"drill: {error}", file=sys.stderr)
        failed = 1
    except KeyboardInterrupt:
        print("drill: interrupted", file=sys.stderr)
        failed = 130
    finally:
        if given.json:
            found = [*(each.as_json() for each in outcomes), *(each.as_json() for each in skipped)]
            given.json.write_text(json.dumps(found, indent=1) + "\n")
        if outcomes:
            print(f"\n{table(outcomes)}")
            if given.report:
                refresh(outcomes)
    return failed or result(outcomes, skipped)


def result(outcomes: Sequence[Outcome], skipped: Sequence[Skipped]) -> int:
    """The status to end with: 1 where something isn't as it shall be, or was asked for and not tried."""
    return int(any(outcome.broken() or outcome.late() for outcome in outcomes) or any(each.named for each in skipped))


def _run(driver: str, names: Sequence[str], outcomes: list[Outcome], skipped: list[Skipped], *, named: bool) -> None:
    """Each on the same stack; what came of it goes to `outcomes` as soon as it's there, or to `skipped`.

    Raises `DrillError` where the stack doesn't end.
    """
    folder = Path(tempfile.mkdtemp(prefix="sluice-drill-"))
    folder.chmod(0o755)  # nginx's workers are nobody
    service = Service(folder, driver)
    try:
        service.furnish()
        for name in names:
            if DRILLS[name].isolated and not namespaces.inside():
                why = namespaces.why_not() or "there are no namespaces"
                print(f"==> skipped: {name}: {why}", flush=True)
                skipped.append(Skipped(name, driver, why, named))
                continue
            print(f"==> {name} ({driver}): {DRILLS[name].about}", end="", flush=True)
            started = time.monotonic()
            try:
                outcome = uvloop.run(run(DRILLS[name], service))
            finally:
                print(f": {time.monotonic() - started:.0f} s", flush=True)
            outcomes.append(outcome)
            for what, number in outcome.notes.items():
                print(f"    {number:g} {what}", flush=True)
            for problem in [*outcome.broken(), *outcome.late()]:
                print(f"    {problem}", flush=True)
    finally:
        with _undisturbed():
            service.down()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Whoever asks again to end meanwhile has to wait: there is something to end first."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (*STOPS, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: allowed is a number above 0")
    return number


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "drill.sh",
        description="Lets things fail on a native stack of its own (loopback, ports and a folder of its own), under"
        " load, and counts what that costs. Without names, everything.",
        epilog="Ends with 1 where something was lost, wrong or later than its bounds, or was named and can't be tried.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills; --list has them all")
    parser.add_argument("--list", action="store_true", help="name all drills, and what they do")
    parser.add_argument("--quick", action="store_true", help="those that the tests run")
    parser.add_argument("--driver", action="append", choices=DRIVERS, help="default: pymongo; may be both")
    parser.add_argument("--report", action="store_true", help="put the table into docs/reliability.md, too")
    parser.add_argument(
        "--minutes", type=_positive, default=soak.MINUTES, metavar="N", help="of the soak (%(default)g)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    given = parser.parse_args(arguments)
    if given.json and (given.json.is_dir() or not os.access(given.json.absolute().parent, os.W_OK)):
        parser.error(f"--json={given.json}: allowed is a file in a folder that can be written")
    if unknown := [name for name in given.names if name not in DRILLS]:
        parser.error(f"{', '.join(unknown)}: allowed are {', '.join(DRILLS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
