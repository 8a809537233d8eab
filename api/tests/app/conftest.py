"""What the service's own tests share: settings that don't read the machine's environment, and a client for an app."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from app.observe import http_metrics, metric_values
from app.settings.model import Settings, load

Client = Callable[[ASGIApp], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {field.upper() for field in Settings.model_fields} & os.environ.keys():
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**given: Any) -> Settings:
        return load(_env_file=None, **{"stats_dir": tmp_path / "stats", **given})

    return make


@pytest.fixture
def client() -> Client:
    @asynccontextmanager
    async def serve(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

    return serve


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    """What one test's app has counted is none of the next one's."""
    yield
    http_metrics.REQUESTS.clear()
    http_metrics.DURATION.clear()
    http_metrics._children.clear()
    metric_values._slot = metric_values._Slot()
