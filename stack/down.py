"""Stop the native stack. Called by scripts/down.sh; standard library only, since the packages may be broken."""

from __future__ import annotations

import argparse
import shutil
import sys

from stack.home import Home, StackError
from stack.output import say
from stack.stop import end_others, refuse_others, stop


def main() -> int:
    parser = argparse.ArgumentParser("down.sh")
    parser.add_argument("--purge", action="store_true")
    given = parser.parse_args()
    home = Home(Home.folder())
    try:
        refuse_others(home)
        end_others(home)
        if home.home.is_dir():
            with home.alone():
                say("stopped" if stop(home) else "nothing is running")
        else:
            say("nothing is running")
        home.check_shared()
        shutil.rmtree(home.shared, ignore_errors=True)
        if given.purge:
            purge(home)
    except (StackError, OSError) as error:
        print(f"down: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("down: interrupted; run it again", file=sys.stderr)
        return 130
    return 0


def purge(home: Home) -> None:
    """Delete what it wrote, but for packages and programs.

    Raises `OSError`, and `StackError` for a folder in which no stack was: its `data` is somebody's.
    """
    names = ("data", "secrets", "logs", "run", "nginx", "prometheus", "grafana")
    found = [home.home / name for name in names if (home.home / name).exists()]
    if found and not any(mark.exists() for mark in (home.supervisor, home.home / "venv" / "locks.sha256")):
        raise StackError(f"SLUICE_HOME={home.home}: allowed is a folder that up.sh made; nothing was deleted")
    for folder in found:
        shutil.rmtree(folder)
    home.supervisor.unlink(missing_ok=True)
    say("data, secrets and logs are gone")


if __name__ == "__main__":
    sys.exit(main())
