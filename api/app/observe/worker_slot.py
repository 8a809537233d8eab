"""The slot of this worker: its number among the container's workers, by which they find each other's figures."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.observe import metric_values
from sluice import Slot

log = logging.getLogger(__name__)

METRICS = "metrics"
"""The folder of the metrics' files, in that of the slots."""
KEEP_EVERY = 1.0
"""Seconds between two looks whether the slot and the metrics' files are still there, or can be had by now."""

_slot: Slot | None = None


def number() -> int | None:
    """The number of this process's slot; None where it has none: in a master, say."""
    return _slot.number if _slot is not None else None


@asynccontextmanager
async def claimed(directory: Path) -> AsyncIterator[Slot]:
    """A slot among those of this folder, as long as the worker lives. One that can't be had yet is no reason not to
    serve: it is tried again, and the number is the process's own till then.

    Entered on the worker's own loop, so never before a fork.
    """
    global _slot
    _slot = slot = Slot(directory)
    try:
        _keep(slot)
    except OSError as error:
        log.error("there is no slot for this worker's statistics: %s", error)
    keeping = asyncio.create_task(_go_on_keeping(slot))
    try:
        yield slot
    finally:
        keeping.cancel()
        metric_values.leave()
        slot.close()
        _slot = None


def _keep(slot: Slot) -> None:
    """Hold the slot, and the metrics' files that are named by it. Raises `OSError` where there is no slot."""
    slot.hold()
    metric_values.keep(slot.directory / METRICS, slot.number)


async def _go_on_keeping(slot: Slot) -> None:
    while True:
        await asyncio.sleep(KEEP_EVERY)
        with suppress(OSError):  # which `Sluice` says, too
            _keep(slot)


def _forget() -> None:
    global _slot
    _slot = None


os.register_at_fork(after_in_child=_forget)  # the slot itself lets go of its lock there
