"""The worker's life: open Sluice on the worker's own loop, close it at the end."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from app.serving import worker_slot
from app.settings.model import Settings
from sluice.client import Prepare, Sluice
from sluice.errors import NotPrepared

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

log = logging.getLogger(__name__)

CLOSING = 10.0
CONNECTING = 2.0
"""Seconds that a worker waits for MongoDB before it takes requests: one that replaces another (`max_requests`) would
else begin with refusals, and be replaced for their number. After that it serves, whether or not MongoDB is there."""


def lifespan(settings: Settings, prepares: Sequence[Prepare]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The lifespan of an app with these resources.

    It doesn't raise because MongoDB is away: Gunicorn takes a failing lifespan for a boot error and stops everything.
    """

    async def prepare(database: AsyncDatabase[dict[str, Any]]) -> str | None:
        missing, wanting = [], []
        for prepare_resource in prepares:
            try:
                wanting.append(await prepare_resource(database))
            except NotPrepared as error:
                missing.append(str(error))
        if missing:
            raise NotPrepared("; ".join(missing))
        return "; ".join(filter(None, wanting)) or None

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        sluice = Sluice(settings.options(), worker_slot.claim(settings.stats_dir), prepare=prepare)
        app.state.sluice = sluice
        await sluice.open()
        await sluice.wait_until_prepared(min(CONNECTING, sluice.options.server_selection_timeout))
        _calm_the_garbage_collector()
        try:
            yield
        finally:
            try:
                async with asyncio.timeout(CLOSING):
                    await sluice.close()
            except Exception:
                log.exception("closing failed")
            worker_slot.release()

    return live


def _calm_the_garbage_collector() -> None:
    """Spare the collector what stays as long as the worker, and let it run less often: its pauses are the tail."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
