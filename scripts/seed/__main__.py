"""`./scripts/seed.sh`: the command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

EXIT_INTERRUPTED = 130
DESCRIPTION = """Add realistic users to the running stack's database, in bulk.

The same seed always makes the same people, so running it again adds only who is missing: it continues after an
interruption, and changes nothing once everybody is there. Users that were there before stay as they are."""
EPILOG = """The database: --url, else that of the stack (in containers if they run, else the native one below
SLUICE_HOME), else MONGODB_URL (or MONGODB_URL_FILE), from the environment or .env; DATABASE_NAME in it.
Exit status: 0 done, 1 failed, 2 wrong usage."""


def _whole_number(lowest: int, highest: int) -> type[int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
            raise argparse.ArgumentTypeError(f"{text!r}: allowed is a whole number from {lowest:,} to {highest:,}")
        return int(text)

    return parse  # type: ignore[return-value]  # argparse wants a callable


def arguments(given: list[str]) -> argparse.Namespace:
    """Parse the command line; ends the process with 2 when it's wrong."""
    parser = argparse.ArgumentParser(
        "seed.sh", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=_whole_number(1, 100_000_000), required=True, metavar="N", help="how many")
    parser.add_argument("--seed", type=_whole_number(0, 2**32), default=1, metavar="S", help="which people (1)")
    parser.add_argument(
        "--batch", type=_whole_number(1, 50_000), default=1_000, metavar="B", help="users per write (1000)"
    )
    parser.add_argument("--url", help="MongoDB's connection string")
    return parser.parse_args(given)


def main() -> int:
    given = arguments(sys.argv[1:])

    # Only now: --help and wrong usage need none of these, and no virtual environment.
    from pymongo.errors import PyMongoError, ServerSelectionTimeoutError
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from scripts.seed import target
    from scripts.seed.people import People

    try:
        from scripts.seed.fill import fill
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("app.users"):
            raise
        print("seed.sh: it fills the example, api/app/users, which isn't here any more", file=sys.stderr)
        return 1

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    started = time.monotonic()
    try:
        where = target.find(given.url)
        print(f"Seeding {given.users:,} users (seed {given.seed}) into {where}", flush=True)
        with bar:
            task = bar.add_task("users", total=given.users)
            outcome = asyncio.run(
                fill(
                    where,
                    People(given.seed),
                    given.users,
                    given.batch,
                    progress=lambda done: bar.update(task, completed=done),
                )
            )
    except KeyboardInterrupt:
        print("seed.sh: stopped; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    except target.TargetError as error:
        print(f"seed.sh: {error}", file=sys.stderr)
        return 1
    except ServerSelectionTimeoutError as error:
        reason = str(error).partition(", Timeout:")[0]
        print(f"seed.sh: MongoDB can't be reached (is the stack up? ./scripts/up.sh): {reason}", file=sys.stderr)
        return 1
    except PyMongoError as error:
        print(f"seed.sh: {type(error).__name__}: {str(error)[:300]}; the same command continues", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    if outcome.taken:
        print(f"{outcome.taken:,} were left out: other users have their e-mail addresses.")
    if not outcome.added:
        print(f"Nothing changed: {outcome.there:,} of these users were there already.")
        return 0
    before = f"; {outcome.there:,} were there already" if outcome.there else ""
    print(f"Added {outcome.added:,} users in {seconds:.1f} s ({outcome.added / seconds:,.0f} a second){before}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
