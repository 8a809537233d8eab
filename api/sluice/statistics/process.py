"""What the worker's process uses."""

from __future__ import annotations

import time

try:
    import psutil
except ModuleNotFoundError:  # an extra: `metrics`
    psutil = None  # type: ignore[assignment]


def cpu_seconds() -> float:
    """User and system time of this process, so far."""
    return time.process_time()


def memory_bytes() -> int | None:
    """Resident memory; None where psutil isn't installed."""
    return None if psutil is None else psutil.Process().memory_info().rss
