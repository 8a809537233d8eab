"""Routes that cost little and read JSON only; which route a request was given to, and which paths belong together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute
from starlette.types import Scope

from app.http.media_type import require_json

NO_ROUTE = "none"


def template(scope: Scope) -> str:
    """The template of the route that the request was given to; `NO_ROUTE` before that, and where no route fits."""
    return getattr(scope.get("route"), "path", None) or NO_ROUTE


def under(*tops: str) -> Callable[[str], bool]:
    """Whether a path is one of these or below it; not one that only begins alike, such as /healthcare."""
    exactly, below = frozenset(tops), tuple(f"{top}/" for top in tops)
    return lambda path: path in exactly or path.startswith(below)


class DirectRoute(APIRoute):
    """Calls a coroutine function from a `Request` to a `Response` directly: there is nothing to resolve or convert.

    Where there is, a body must be JSON, unless it is a form.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        needed = self.dependant
        parameters = (needed.path_params, needed.query_params, needed.header_params, needed.cookie_params)
        types = get_type_hints(self.endpoint)
        if any(parameters) or needed.body_params or needed.dependencies or list(types.values()) != [Request, Response]:
            return self._resolving()
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler

    def _resolving(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None or isinstance(self.body_field.field_info, Form):
            return handle

        async def check_first(request: Request) -> Response:
            require_json(request)
            return await handle(request)

        return check_first
