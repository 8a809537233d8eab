"""`./scripts/logs.sh`: the command line."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from pathlib import Path

from scripts.log_report import errors, pool, slow, table
from scripts.log_report.records import Tally, read
from scripts.log_report.source import SourceError, open_logs

DESCRIPTION = """Report on the service's log.

  pool    pool events by kind and member
  slow    slow operations with percentiles (seconds), by operation and route
  errors  errors by kind, each with an example"""
EPILOG = """FILE is a log in text or JSON, plain or gzipped, or - for standard input; by default that of the stack:
of the API's containers if they run, else the native one's logs/api.log below SLUICE_HOME (default: .sluice), with
the older ones beside it.
Lines that are no log records are counted and reported on standard error.
Exit status: 0 done (also when nothing was found), 1 the log can't be read, 2 wrong usage."""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is a number of seconds from 0")
    return seconds


def arguments(given: list[str]) -> argparse.Namespace:
    """Parse the command line; ends the process with 2 when it's wrong."""
    parser = argparse.ArgumentParser(
        "logs.sh", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", choices=("pool", "slow", "errors"))
    parser.add_argument("file", nargs="?", metavar="FILE")
    parser.add_argument("--over", type=_seconds, metavar="SECONDS", help="slow: only operations that took longer")
    parsed = parser.parse_intermixed_args(given)
    if parsed.over is not None and parsed.report != "slow":
        parser.error("--over goes with slow")
    return parsed


def _stacks_logs() -> list[str]:
    """What the native stack has of its log, the oldest first: `api.log.1` is the one before `api.log`."""
    home = os.environ.get("SLUICE_HOME") or Path(__file__).resolve().parents[2] / ".sluice"
    log = Path(home) / "logs" / "api.log"
    older = [path for path in log.parent.glob("api.log.*") if path.suffix[1:].isdecimal()]
    return [str(path) for path in (*sorted(older, key=lambda path: -int(path.suffix[1:])), log)]


def main() -> int:
    given = arguments(sys.argv[1:])
    tally = Tally()
    module = {"pool": pool, "slow": slow, "errors": errors}[given.report]
    try:
        with open_logs([given.file] if given.file is not None else _stacks_logs()) as log:
            records = read(log, module.NEEDLES, tally)
            rows = slow.report(records, given.over) if module is slow else module.report(records)
    except SourceError as error:
        print(f"logs.sh: {error}", file=sys.stderr)
        return 1
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text = table.lines(module.HEADER, rows, width) if rows else [module.NOTHING]
    try:
        print("\n".join(text), flush=True)
    except BrokenPipeError:  # `| head` has seen enough; keep Python from complaining when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if tally.first_strange is not None:
        number, line = tally.first_strange
        count = f"{tally.strange:,} of {tally.lines:,} lines"
        print(
            f"logs.sh: {count} are no log records, first line {number:,}: {table.printable(line[:100])}",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
