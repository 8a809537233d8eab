"""Usage: drill.sh [NAME…] [--driver DRIVER] [--json FILE]; see `--help`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from drill import namespaces, soak
from drill.catalogue import DRILLS, QUICK
from drill.outcome import Outcome
from drill.report import DRIVERS, refresh, table
from drill.run import run
from drill.service import DrillError, Service


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started ends
    DRILLS["soak"] = soak.drill(given.minutes)
    names = given.names or (QUICK if given.quick else list(DRILLS))
    outcomes: list[Outcome] = []
    try:
        for driver in given.driver or ["pymongo"]:
            _run(driver, names, outcomes)
    except DrillError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("drill: interrupted", file=sys.stderr)
        return 130
    finally:
        if outcomes:
            print(f"\n{table(outcomes)}")
            if given.report:
                refresh(outcomes)
            if given.json:
                given.json.write_text(json.dumps([outcome.as_json() for outcome in outcomes], indent=1) + "\n")
    return any(outcome.broken() or outcome.late() for outcome in outcomes)


def _run(driver: str, names: Sequence[str], outcomes: list[Outcome]) -> None:
    """Each on the same stack; what came of it goes to `outcomes` as soon as it's there."""
    with tempfile.TemporaryDirectory(prefix="sluice-drill-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # nginx's workers are nobody
        service = Service(Path(folder), driver)
        try:
            for name in names:
                if DRILLS[name].isolated and not namespaces.inside():
                    print(f"==> skipped: {name}: {namespaces.why_not()}", flush=True)
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
            service.down()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "drill.sh",
        description="Lets things fail on a native stack of its own (loopback, ports and a folder of its own), under"
        " load, and counts what that costs. Without names, everything.",
        epilog="Ends with 1 where something was lost, wrong or later than its bounds.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="drills; --list has them all")
    parser.add_argument("--list", action="store_true", help="name all drills, and what they do")
    parser.add_argument("--quick", action="store_true", help="those that the tests run")
    parser.add_argument("--driver", action="append", choices=DRIVERS, help="default: pymongo; may be both")
    parser.add_argument("--report", action="store_true", help="put the table into docs/reliability.md, too")
    parser.add_argument("--minutes", type=float, default=soak.MINUTES, metavar="N", help="of the soak (%(default)g)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in DRILLS]:
        parser.error(f"{', '.join(unknown)}: allowed are {', '.join(DRILLS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
