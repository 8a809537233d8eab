"""Route templates (`/users/{id}`), by which requests are grouped in logs and metrics."""

from __future__ import annotations

from starlette.types import Scope


def template(scope: Scope) -> str:
    """The template of the route that the request was given to; `none` before that, and where no route fits."""
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path", None) or "none"
