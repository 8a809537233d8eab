"""The worker's `Sluice`: opened on its loop with a slot for its statistics, closed before the worker ends."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app.observe.worker_slot import claimed
from app.settings.model import Settings
from sluice import NotPrepared, Prepare, Sluice

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

log = logging.getLogger(__name__)

CLOSING = 10.0
CONNECTING = 2.0
"""Seconds that a worker waits for MongoDB before it takes requests: one that replaces another (`max_requests`) would
else begin with refusals, and be replaced for their number. After that it serves, whether or not MongoDB is there."""


@asynccontextmanager
async def worker_sluice(settings: Settings, prepares: Sequence[Prepare]) -> AsyncIterator[Sluice]:
    """An open `Sluice` that has been given the time to connect. Never raises because MongoDB is away."""
    async with claimed(settings.stats_dir) as slot:
        sluice = Sluice(settings.options(), slot, prepare=_all_of(prepares))
        await sluice.open()
        await sluice.wait_until_prepared(min(CONNECTING, sluice.options.server_selection_timeout))
        _calm_the_garbage_collector()
        try:
            yield sluice
        finally:
            try:
                async with asyncio.timeout(CLOSING):
                    await sluice.close()
            except Exception:
                log.exception("closing failed")


def _all_of(prepares: Sequence[Prepare]) -> Prepare:
    """Prepares every resource; raises `NotPrepared` for all that can't be, at the end."""

    async def prepare(database: AsyncDatabase[dict[str, Any]]) -> str | None:
        failed, incomplete = [], []
        for prepare_resource in prepares:
            try:
                incomplete.append(await prepare_resource(database))
            except NotPrepared as error:
                failed.append(str(error))
        if failed:
            raise NotPrepared("; ".join(failed))
        return "; ".join(filter(None, incomplete)) or None

    return prepare


def _calm_the_garbage_collector() -> None:
    """Spare the collector what stays as long as the worker, and let it run less often: its pauses are the tail."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
