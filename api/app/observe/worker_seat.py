"""The seat of this worker: its number among the container's workers, by which they find each other's figures."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.observe import metric_values
from sluice.statistics.slots import Slot

log = logging.getLogger(__name__)

METRICS = "metrics"
"""The folder of the metrics' files, in that of the seats."""
KEEP_EVERY = 1.0
"""Seconds between two looks whether the metrics' files are still there, or can be had by now."""

_seat: Slot | None = None


def number() -> int | None:
    """The number of this process's seat; None where it has none: in a master, say."""
    return _seat.number if _seat is not None else None


@asynccontextmanager
async def seated(directory: Path) -> AsyncIterator[Slot]:
    """A seat among those of this folder, as long as the worker lives. One that can't be had yet is no reason not to
    serve: `Sluice` goes on trying, and the number is the process's own till then.

    Entered on the worker's own loop, so never before a fork.
    """
    global _seat
    _seat = seat = Slot(directory)
    try:
        seat.hold()
    except OSError as error:
        log.error("there is no slot for this worker's statistics: %s", error)
    metric_values.keep(directory / METRICS, seat.number)
    keeping = asyncio.create_task(_keep_metrics(seat))
    try:
        yield seat
    finally:
        keeping.cancel()
        metric_values.leave()
        seat.close()
        _seat = None


async def _keep_metrics(seat: Slot) -> None:
    while True:
        await asyncio.sleep(KEEP_EVERY)
        metric_values.keep(seat.directory / METRICS, seat.number)


def _forget() -> None:
    global _seat
    _seat = None


os.register_at_fork(after_in_child=_forget)  # the seat itself lets go of its lock there
