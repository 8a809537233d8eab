"""What people are told while they wait. Standard library only."""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """One step that is being taken."""
    tell(f"==> {text}")


def tell(text: str) -> None:
    """Print it, if anybody is left to read it: `up.sh | tee log` stops all the same when Ctrl-C has ended `tee`."""
    try:
        print(text, flush=True)
    except OSError:  # the pipe's other end, or the terminal, is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
