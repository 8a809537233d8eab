"""What the service puts around an application: routes of its own, answers to errors, and middleware in its order."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware

from app.http import cors, errors, methods, openapi, redirects
from app.http.middleware import BodyLimit, Context, Deadline, Problems
from app.observe import health, metrics, stats
from app.observe.access_log import AccessLog
from app.observe.http_figures import HttpFigures
from app.settings.model import Settings


def install(app: FastAPI, settings: Settings, routers: Iterable[APIRouter] = ()) -> None:
    """Add health, statistics, metrics and these routers' routes to the app, and its middleware around what it has."""
    app.state.settings = settings
    # `include_router` would match each request and hand it on twice: a tenth of what a point read costs. The resources
    # come first, before the documentation, since routes are tried in order.
    app.router.routes[:0] = [
        route for router in (*routers, health.router, stats.router, metrics.router) for route in router.routes
    ]
    cache = settings.stats_cache_ms / 1000
    figures = HttpFigures(settings.stats_dir)
    health.install(app, cache)
    stats.install(app, cache)
    metrics.install(app, figures, settings)
    methods.install(app)
    redirects.install(app)
    errors.install(app)
    openapi.install(app)
    for layer, arguments, options in reversed(middleware(settings, figures)):
        app.add_middleware(layer, *arguments, **options)


def middleware(settings: Settings, figures: HttpFigures) -> list[Middleware]:
    """What every request passes, the outermost first."""
    return [
        # Whatever the others log has the request's id, and the whole of its time is told and logged.
        Middleware(Context, log_access=AccessLog(settings.access_log).write),
        # Counts every answer that is sent, with the status that it's sent with: problems and preflights, too.
        Middleware(metrics.HttpMetrics, figures=figures),
        # Around what answers errors: a page may read them as well.
        *cors.middleware(settings.cors_origins),
        # Around what refuses requests by raising, below.
        Middleware(Problems),
        # What is read of the body is read within the request's time.
        Middleware(Deadline, seconds=settings.request_timeout_ms / 1000),
        Middleware(BodyLimit, limit=settings.max_body_bytes),
    ]
