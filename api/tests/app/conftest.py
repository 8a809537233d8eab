"""What the service's own tests share: settings that don't read the machine's environment, a client for an app, and the
whole service with a database of its own."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pymongo import MongoClient
from starlette.types import ASGIApp

from app.main import create_app
from app.observe import http_metrics, metric_values
from app.serving.http_protocol import HttpProtocol
from app.settings.model import Settings, load
from stack.free_ports import free_ports
from stack.replica_set import ReplicaSet

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


class Service(NamedTuple):
    """The running service: its application, whose `dependency_overrides` may be set, and a client that asks it."""

    app: FastAPI
    http: httpx.AsyncClient


@pytest.fixture
async def service(replica_set: ReplicaSet, driver: str, settings: Callable[..., Settings]) -> AsyncIterator[Service]:
    """The whole service on a real server and a real replica set, with each driver in turn.

    It has a database of its own, which is dropped at the end.
    """
    database = f"test_{uuid.uuid4().hex[:8]}"
    app = create_app(
        settings(mongodb_url=replica_set.url, mongodb_driver=driver, database_name=database, min_pool_size=0)
    )
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=HttpProtocol, log_config=None))
    serving = asyncio.create_task(server.serve())
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            async with asyncio.timeout(20):
                while not server.started or (await http.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.05)
            yield Service(app, http)
    finally:
        server.should_exit = True
        await serving
        with MongoClient[dict[str, Any]](replica_set.url) as client:
            client.drop_database(database)


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    """What one test's app has counted is none of the next one's."""
    yield
    http_metrics.REQUESTS.clear()
    http_metrics.DURATION.clear()
    http_metrics._children.clear()
    metric_values._slot = metric_values._Slot()
