"""The worker's life: what the application opens on the worker's own loop, and closes at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from app.serving.worker_sluice import worker_sluice
from app.settings.model import Settings
from sluice import Prepare


def lifespan(settings: Settings, prepares: Sequence[Prepare]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The lifespan of an app with these resources.

    It may not raise because MongoDB, or anything else, is away: Gunicorn takes a failing lifespan for a boot error and
    stops everything.
    """

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        async with worker_sluice(settings, prepares) as sluice:
            app.state.sluice = sluice
            yield

    return live
