"""The application: its resources, and what they add to every stack's health, statistics and metrics."""

from __future__ import annotations

from importlib import import_module

from fastapi import FastAPI

from app.data import idempotency
from app.http import openapi
from app.lifespan import lifespan
from app.security import BEFORE_THE_BODY
from app.serving import assembly, process
from app.settings.model import Settings

RESOURCES = ("app.users",)
"""Each a folder with a `router`, and `prepare`, which makes its collection ready."""

DESCRIPTION = """FastAPI on MongoDB with connection pools that you can see, size and trust.

Errors are problem details (RFC 9457) with a stable `type` and the request's id. `Retry-After` is there where repeating
is safe. `X-Request-ID` and `traceparent` are taken over and sent back; `Server-Timing` says where the time went.
`X-Request-Timeout-Ms` asks for an answer in less time than the service would take at most.
"""

TAGS = [
    {"name": "users", "description": "The example: people with a unique e-mail address. Changes name a version."},
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
        license_info={"name": "MIT", "identifier": "MIT"},
        servers=[{"url": "/", "description": "This service."}],
        generate_unique_id_function=openapi.operation_id,
        lifespan=lifespan(settings, [idempotency.prepare, *(resource.prepare for resource in resources)]),
    )
    for resource in resources:
        app.include_router(resource.router)
    # Middleware that is added here is the innermost; after `install`, the outermost.
    assembly.install(app, settings, BEFORE_THE_BODY)
    return app


def serve() -> FastAPI:
    """The application as the environment configures it. Wrong settings end the process in one line."""
    return create_app(process.begin())
