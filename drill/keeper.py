"""Ends the stack of drills that were killed: `python -m drill.keeper FOLDER [MOUNT…]` in that stack's environment.

It waits for the end of its standard input, which nobody else has: a word on it says that nothing is left to do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from drill import namespaces


def main(folder: str, *mounts: str) -> None:
    if sys.stdin.buffer.read():
        return
    for mount in mounts:
        with suppress(OSError, subprocess.SubprocessError):
            namespaces.unmount(Path(mount))
    done = subprocess.run([sys.executable, "-m", "stack.down"], stdout=subprocess.DEVNULL)
    if done.returncode == 0:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
