"""`/metrics`, for Prometheus: pools from `sluice`, HTTP from prometheus-fastapi-instrumentator."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_fastapi_instrumentator.metrics import Info
from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.methods import METHODS, OTHER_METHOD
from app.http.routing import NO_ROUTE, template, under
from app.observe.http_figures import HttpFigures
from app.observe.single_flight import SingleFlight
from app.settings.model import Settings
from sluice import SluiceCollector

router = APIRouter(include_in_schema=False)

is_unmeasured = under("/metrics", "/health")
"""Paths that would only blur how long callers wait."""


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Every worker's figures, from any worker."""
    return Response(await request.app.state.metrics.get(), media_type=CONTENT_TYPE_LATEST)


def install(app: FastAPI, figures: HttpFigures, settings: Settings) -> None:
    """Serve the app's figures, those of its requests included; a burst of scrapes costs one."""
    app.state.http_figures = figures
    app.state.metrics = SingleFlight(lambda: asyncio.to_thread(_render, app, settings), settings.stats_cache_ms / 1000)


class HttpMetrics(PrometheusInstrumentatorMiddleware):
    """Counts and times requests by route template, over all workers of the container.

    The instrumentator's own `__call__` matches the routes a second time and copies the answer: twice as dear.
    """

    def __init__(self, app: ASGIApp, figures: HttpFigures) -> None:
        figures.check()  # this is made when the worker starts to serve, after any fork
        super().__init__(app, instrumentations=[figures.count])

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


def _render(app: FastAPI, settings: Settings) -> bytes:
    registry = CollectorRegistry()
    app.state.http_figures.register(registry)
    pools = SluiceCollector(
        settings.stats_dir, settings.database_name, demand=settings.demand, budget=settings.connection_budget
    )
    registry.register(pools)
    return generate_latest(registry)
