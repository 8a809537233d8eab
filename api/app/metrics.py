"""`/metrics`, for Prometheus: pools from `sluice`, HTTP from prometheus-fastapi-instrumentator."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_fastapi_instrumentator.metrics import Info
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import worker_slot
from app.methods import METHODS, OTHER_METHOD
from app.routing import NO_ROUTE, template, under
from app.settings import Settings
from app.single_flight import SingleFlight
from sluice.metrics import SluiceCollector

router = APIRouter(include_in_schema=False)

REQUESTS = "http_requests_total"
DURATION = "http_request_duration_seconds"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
is_unmeasured = under("/metrics", "/health")
"""Paths that would only blur how long callers wait."""


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Every worker's figures, from any worker."""
    return Response(await request.app.state.metrics.get(), media_type=CONTENT_TYPE_LATEST)


def install(app: FastAPI, settings: Settings) -> None:
    """Measure the app's requests, and serve the figures; a burst of scrapes costs one."""
    app.add_middleware(HttpMetrics, directory=settings.stats_dir)
    app.state.metrics = SingleFlight(lambda: asyncio.to_thread(_render, settings), settings.stats_cache_ms / 1000)


class HttpMetrics(PrometheusInstrumentatorMiddleware):
    """Counts and times requests by route template, over all workers of the container.

    Made when the worker starts to serve, never before a fork: its figures live in files named by the worker's slot.
    The instrumentator's own `__call__` matches the routes a second time and copies the answer: twice as dear.
    """

    def __init__(self, app: ASGIApp, directory: Path) -> None:
        _share(directory)
        super().__init__(app, instrumentations=[_instrumentation()])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_unmeasured(scope["path"]):
            await self.app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            seconds = time.perf_counter() - started
            request = Request(scope)
            handler = template(scope)
            if handler == NO_ROUTE:  # refused before the routes were asked, or there's none
                found, is_templated = self._get_handler(request)
                handler = found if is_templated else NO_ROUTE
            method = scope["method"]
            if status >= 300 and method not in METHODS:  # a caller may invent as many as it likes
                method = OTHER_METHOD
            info = Info(request, None, method, handler, f"{status // 100}xx", seconds)
            for instrumentation in self.instrumentations:
                instrumentation(info)


def _instrumentation() -> Callable[[Info], None]:
    registry = CollectorRegistry()  # only to be made with: what counts are the files
    requests = Counter(REQUESTS, "Requests.", ("method", "status", "handler"), registry=registry)
    duration = Histogram(
        DURATION, "Seconds until the answer was sent.", ("method", "handler"), buckets=BUCKETS, registry=registry
    )
    children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}  # `labels()` costs as much as counting

    def measure(info: Info) -> None:
        labels = (info.method, info.modified_status, info.modified_handler)
        found = children.get(labels)
        if found is None:
            found = children[labels] = (requests.labels(*labels), duration.labels(info.method, info.modified_handler))
        found[0].inc()
        found[1].observe(info.modified_duration)

    return measure


def _files(directory: Path) -> Path:
    return directory / "http"


def _share(directory: Path) -> None:
    """Keep this process's metrics in files that all workers read; a slot's next owner continues its counters."""
    slot = worker_slot.claim(directory).number
    files = _files(directory)
    files.mkdir(exist_ok=True)
    mark_process_dead(slot, str(files))  # type: ignore[no-untyped-call]
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files)
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]


def _render(settings: Settings) -> bytes:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(_files(settings.stats_dir)))  # type: ignore[no-untyped-call]
    pools = SluiceCollector(
        settings.stats_dir, settings.database_name, demand=settings.demand, budget=settings.connection_budget
    )
    registry.register(pools)
    return generate_latest(registry)
