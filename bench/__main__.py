"""Usage: bench.sh [--quick] [--only NAME] [--repeat N] ... ; see `--help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from bench import cost, overload, pool, profiling, report, results, web
from bench.plan import FULL, QUICK, Plan
from bench.results import Results, Workload
from stack.mongod import find_mongod
from stack.replica_set import ReplicaSet

Run = Callable[[Plan, str, Path], Workload]


def _in_process(run: Callable[[Plan, str], Coroutine[Any, Any, Workload]]) -> Run:
    return lambda plan, url, folder: uvloop.run(run(plan, url))


WORKLOADS: dict[str, Run] = {
    "pool": _in_process(pool.throughput),
    "fairness": _in_process(pool.fairness),
    "sizes": _in_process(pool.sizes),
    "http": web.http,
    "overload": overload.overload,
    "instrumentation": cost.instrumentation,
    "profile": profiling.profile,
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = _arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started ends
    path: Path = given.results or results.HERE / ("quick.json" if given.quick else "full.json")
    if given.report:
        return _report(path)
    plan = QUICK if given.quick else FULL
    if given.repeat:
        plan = replace(plan, rounds=given.repeat)
    if given.seconds:
        plan = plan.shortened(given.seconds)
    try:
        failed = _run(plan, given.only or list(WORKLOADS), path)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    stored = results.load(path)
    print("\n" + report.text(stored))
    if not given.no_plots:
        from bench import plots  # matplotlib takes its time

        for picture in plots.draw(stored, path):
            print(f"==> {picture}")
    print(f"==> {path}")
    if failed:
        print(f"bench: not measured: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def _run(plan: Plan, names: Sequence[str], path: Path) -> list[str]:
    """Measure these workloads; each is stored as soon as it's done. Those that failed."""
    machine = results.machine(find_mongod())
    try:
        stored = results.load(path)
    except (OSError, ValueError, KeyError):
        stored = Results(machine)
    if stored.machine != machine:  # figures of two machines don't belong into one table
        stored = Results(machine)
    failed = []
    for name in names:
        print(f"==> {name}", end="", flush=True)
        started = time.monotonic()
        replica_set = ReplicaSet()  # a new one for each, so that none meets what another has left behind
        try:
            replica_set.start()
            with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
                os.chmod(folder, 0o755)  # noqa: S103 nginx's workers are nobody
                stored.add(name, WORKLOADS[name](plan, replica_set.url, Path(folder)))
            stored.save(path)
        except Exception:
            failed.append(name)
            print(flush=True)
            traceback.print_exc()
        finally:
            replica_set.stop()
        print(f": {time.monotonic() - started:.0f} s", flush=True)
    return failed


def _report(path: Path) -> int:
    try:
        stored = results.load(path)
    except (OSError, ValueError) as error:
        print(f"bench: {path} can't be read: {error}", file=sys.stderr)
        return 1
    report.refresh(stored)
    print(f"==> {report.PAGE}")
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bench.sh",
        description="Measures Sluice, the bare drivers and the usual templates in turn, on a replica set of its own"
        " (loopback, temporary files, no authentication). Prints tables and plots and stores the figures.",
        epilog="A workload that is measured again replaces its own figures in the results file, and no other's.",
    )
    parser.add_argument("--quick", action="store_true", help="the same in under two minutes, with less certainty")
    parser.add_argument("--only", action="append", choices=WORKLOADS, metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--repeat", type=int, metavar="N", help="how often the sides take turns (default: 3; quick: 1)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="length of each measurement; wrk's are whole seconds"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="where the figures go (default: bench/results/)")
    parser.add_argument("--no-plots", action="store_true", help="draw no pictures")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing: put the figures into docs/performance.md"
    )
    given = parser.parse_args(arguments)
    if given.repeat is not None and not 1 <= given.repeat <= 100:
        parser.error("--repeat: allowed is 1 to 100")
    if given.seconds is not None and not 0 < given.seconds <= 60:
        parser.error("--seconds: allowed is above 0, up to 60")
    return given


if __name__ == "__main__":
    sys.exit(main())
