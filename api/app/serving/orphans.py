"""What becomes of a worker whose master was killed.

The kernel tells it to end, which takes a loop that listens. One that is stuck would keep its listening socket, and with
it a share of the new connections, which nobody answers; and nobody is left who would kill it.
"""

from __future__ import annotations

import os
import signal
import threading
import time

LOOK = 1.0


def end_once_orphaned(master: int, patience: float) -> None:
    """From now on, end this process so many seconds after its master, unless it has ended by then."""
    threading.Thread(target=_watch, args=(master, patience), name="orphan-watch", daemon=True).start()


def _watch(master: int, patience: float) -> None:
    while os.getppid() == master:
        time.sleep(LOOK)
    time.sleep(patience)
    os.kill(os.getpid(), signal.SIGKILL)  # nothing that waits for anything, be it the log's lock
