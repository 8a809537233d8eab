"""Stop the native stack. Called by scripts/down.sh, in the stack's virtual environment."""

from __future__ import annotations

import argparse
import shutil
import sys

from install import say
from layout import Layout, StackError
from supervise import Supervisor, end_leftovers


def main() -> int:
    parser = argparse.ArgumentParser("down.sh")
    parser.add_argument("--purge", action="store_true")
    given = parser.parse_args()
    try:
        layout = Layout.from_environment()
        layout.check_shared()
        supervisor = Supervisor(layout)
        if supervisor.alive:
            supervisor.stop()
            say("stopped")
        elif end_leftovers(layout):
            say("stopped what a process manager that was killed had left")
        else:
            say("nothing is running")
        shutil.rmtree(layout.shared, ignore_errors=True)
        if given.purge:
            for name in ("data", "secrets", "logs", "run", "nginx", "prometheus"):
                shutil.rmtree(layout.home / name, ignore_errors=True)
            layout.supervisor.unlink(missing_ok=True)
            say("data, secrets and logs are gone")
    except StackError as error:
        print(f"down: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
