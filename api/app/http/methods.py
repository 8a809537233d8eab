"""Methods: HEAD wherever there is GET, OPTIONS everywhere, and an `Allow` that names all that a path has."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Match, Mount
from starlette.types import Message, Receive, Scope, Send

from app.http.dispatch import Handle
from app.http.routing import TEMPLATE

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
OTHER_METHOD = "_OTHER"
"""What a caller has invented, in metrics."""


def install(app: FastAPI) -> None:
    """Let the app's router answer HEAD and OPTIONS where no route of its own does, whenever the routes were added."""
    app.router.middleware_stack = _with_head_and_options(app.router.middleware_stack)


def allowed(scope: Scope) -> list[str]:
    """The methods that are answered at the request's path, sorted; none where there is nothing."""
    served = _served(scope)
    if "GET" in served:
        served.add("HEAD")
    return sorted(served | {"OPTIONS"}) if served else []


def _served(scope: Scope) -> set[str]:
    """The methods that have a route at the request's path."""
    router = scope["app"].router
    return _methods(scope, router.routes) or _methods(scope, getattr(router.default, "routes", ()))


def _methods(scope: Scope, routes: Iterable[BaseRoute]) -> set[str]:
    found: set[str] = set()
    for route in iter_route_contexts(list(routes)):
        match, child_scope = route.matches(scope)
        if match is Match.NONE:
            continue
        if isinstance(route.original_route, Mount | Host):  # hides what follows, and may have CORS of its own
            inner = _methods({**scope, **child_scope}, route.routes) if route.routes else set(METHODS)
            asks = any(name == b"access-control-request-method" for name, _ in scope["headers"])
            return found | inner | ({"OPTIONS"} if asks else set())
        found |= {method for method in METHODS if route.matches({**scope, "method": method})[0] is Match.FULL}
    return found


def _with_head_and_options(route: Handle) -> Handle:
    async def head(scope: Scope, receive: Receive, send: Send) -> None:
        served = _served(scope)
        if "HEAD" in served or "GET" not in served:
            await route(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        get = {**scope, "method": "GET"}
        note_route(scope, get)
        await route(get, receive, send_head)

    async def options(scope: Scope, receive: Receive, send: Send) -> None:
        served = _served(scope)
        if "OPTIONS" in served or not served:
            await route(scope, receive, send)
            return
        note_route(scope, scope)
        await Response(None, 204, {"Allow": ", ".join(allowed(scope))})(scope, receive, send)

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """No coroutine of its own, since every request comes by."""
        method = scope.get("method")
        answer = head if method == "HEAD" else options if method == "OPTIONS" else route
        return answer(scope, receive, send)

    return dispatch


def note_route(scope: Scope, matching: Scope) -> bool:
    """Let logs and metrics know the route of a request that isn't given to it as it came; False if there is none."""
    for wanted in (Match.FULL, Match.PARTIAL):
        for route in iter_route_contexts(scope["app"].routes):
            if route.matches(matching)[0] is wanted:
                mounted = isinstance(route.original_route, Mount | Host)
                scope[TEMPLATE] = route.path if mounted else route.path_format
                return True
    return False
