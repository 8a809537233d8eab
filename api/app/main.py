"""The application: resources, middleware, health, statistics and metrics put together."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastapi import FastAPI

from app.http import cors, errors, methods, redirects
from app.http.middleware import BodyLimit, Context, Deadline, Problems
from app.http.problems import ProblemDetails
from app.lifespan import lifespan
from app.observe import health, logs, metrics, stats
from app.observe.access_log import AccessLog
from app.settings.model import Settings
from app.settings.startup import check, current, warn

RESOURCES = ("app.users",)
"""Each a folder with a `router`, and `prepare`, which makes its collection ready."""

DESCRIPTION = """FastAPI on MongoDB with connection pools that you can see, size and trust.

Errors are problem details (RFC 9457) with a stable `type` and the request's id. `Retry-After` is there where repeating
is safe. `X-Request-ID` and `traceparent` are taken over and sent back; `Server-Timing` says where the time went.
"""

TAGS = [
    {"name": "health", "description": "For orchestrators (`live`, `ready`) and for people."},
    {"name": "statistics", "description": "The connection pools, over all workers."},
]


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings; it touches neither MongoDB nor the statistics before it's started."""
    resources = [import_module(name) for name in RESOURCES]
    app = FastAPI(
        title="Sluice",
        version="0.1.0",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan(settings, [resource.prepare for resource in resources]),
    )
    app.state.settings = settings
    routers = (*(resource.router for resource in resources), health.router, stats.router, metrics.router)
    # `include_router` would match each request and hand it on twice: a tenth of what a point read costs. The resources
    # come first, before the documentation, since routes are tried in order.
    app.router.routes[:0] = [route for router in routers for route in router.routes]
    methods.install(app)
    redirects.install(app)
    cache = settings.stats_cache_ms / 1000
    errors.install(app)
    health.install(app, cache)
    stats.install(app, cache)
    _document_problems(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(Deadline, seconds=settings.request_timeout_ms / 1000)
    app.add_middleware(Problems)
    cors.install(app, settings.cors_origins)
    metrics.install(app, settings)
    app.add_middleware(Context, access_log=AccessLog(settings.access_log))
    return app


def serve() -> FastAPI:
    """The application as the environment configures it. Wrong settings end the process in one line."""
    settings = current()
    check(settings)
    logs.set_up(settings)
    warn()
    return create_app(settings)


def _document_problems(app: FastAPI) -> None:
    """Put the problem's schema, which routes refer to, into the API's documentation."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("ProblemDetails", ProblemDetails.model_json_schema())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
