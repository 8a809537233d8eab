"""The routes of the busiest requests, and which route a request was given to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Scope

NO_ROUTE = "none"


def template(scope: Scope) -> str:
    """The template of the route that the request was given to; `NO_ROUTE` before that, and where no route fits."""
    return getattr(scope.get("route"), "path", None) or NO_ROUTE


class DirectRoute(APIRoute):
    """Calls a coroutine function from a `Request` to a `Response` directly: there is nothing to resolve or convert."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        needed = self.dependant
        parameters = (needed.path_params, needed.query_params, needed.header_params, needed.cookie_params)
        types = get_type_hints(self.endpoint)
        if any(parameters) or needed.body_params or needed.dependencies or list(types.values()) != [Request, Response]:
            return super().get_route_handler()
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler
