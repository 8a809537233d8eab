"""What the service puts around an application: routes of its own, answers to errors, and middleware in its order."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware

from app.http import cors, dispatch, errors, methods, openapi, redirects
from app.http.dispatch import Checks
from app.http.middleware import BodyLimit, Context, Deadline, Problems
from app.observe import health, metrics, stats
from app.observe.access_log import AccessLog
from app.observe.http_metrics import HttpMetrics
from app.settings.model import Settings


def install(app: FastAPI, settings: Settings, checks: Checks | None = None) -> None:
    """Add health, statistics and metrics to the app, and middleware around what it has.

    `checks`: what is asked before a body is read, see `app.http.dispatch`.
    """
    app.state.settings = settings
    for router in (health.router, stats.router, metrics.router):
        app.include_router(router)
    cache = settings.stats_cache_ms / 1000
    health.install(app, cache)
    stats.install(app, cache)
    metrics.install(app, settings)
    dispatch.install(app, checks or {})
    methods.install(app)
    redirects.install(app)
    errors.install(app)
    openapi.install(app)
    for layer, arguments, options in reversed(middleware(settings)):
        app.add_middleware(layer, *arguments, **options)


def middleware(settings: Settings) -> list[Middleware]:
    """What every request passes, the outermost first."""
    return [
        # Whatever the others log has the request's id, and the whole of its time is told and logged.
        Middleware(Context, log_access=AccessLog(settings.access_log).write),
        # Counts every answer that is sent, with the status that it's sent with: problems and preflights, too.
        Middleware(HttpMetrics),
        # Around what answers errors: a page may read them as well.
        *cors.middleware(settings.cors_origins),
        # Around what refuses requests by raising, below.
        Middleware(Problems),
        # What is read of the body is read within the request's time.
        Middleware(Deadline, seconds=settings.request_timeout_ms / 1000),
        Middleware(BodyLimit, limit=settings.max_body_bytes),
    ]
