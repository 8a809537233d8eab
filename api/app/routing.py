"""The routes of the busiest requests, which route a request was given to, and what a route needn't say: HEAD wherever
there is GET, OPTIONS everywhere, a slash too many or too few, and where `/` leads."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, get_type_hints
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_ROUTE = "none"
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")


class Handle(Protocol):
    """An application that answers in a coroutine, as a router does."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]: ...


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


def install(app: FastAPI) -> None:
    """Give the app's router these habits. The app's own routes come first, whenever they were added."""
    router = app.router
    router.middleware_stack = _with_head_and_options(router.middleware_stack)
    router.redirect_slashes = False  # such a redirect names scheme and host, of which not every proxy tells
    router.default = Router(
        [Route("/", _documentation)], redirect_slashes=False, default=_or_other_slash(router.default)
    )


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
    for route in routes:
        match, child_scope = route.matches(scope)
        if match is Match.NONE:
            continue
        if isinstance(route, Mount | Host):  # hides what follows, and may have CORS of its own
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
        _note_route(scope, get)
        await route(get, receive, send_head)

    async def options(scope: Scope, receive: Receive, send: Send) -> None:
        served = _served(scope)
        if "OPTIONS" in served or not served:
            await route(scope, receive, send)
            return
        _note_route(scope, scope)
        await Response(None, 204, {"Allow": ", ".join(allowed(scope))})(scope, receive, send)

    def dispatch(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """No coroutine of its own, since every request comes by."""
        method = scope.get("method")
        answer = head if method == "HEAD" else options if method == "OPTIONS" else route
        return answer(scope, receive, send)

    return dispatch


def _note_route(scope: Scope, matching: Scope) -> bool:
    """Let logs and metrics know the route of a request that isn't given to it as it came; False if there is none."""
    for wanted in (Match.FULL, Match.PARTIAL):
        for route in scope["app"].routes:
            match, child_scope = route.matches(matching)
            if match is wanted:
                scope["route"] = child_scope.get("route", route)
                return True
    return False


def _or_other_slash(not_found: ASGIApp) -> ASGIApp:
    async def redirect(scope: Scope, receive: Receive, send: Send) -> None:
        """To the same path with a slash at its end, or without, if something is there; naming no scheme and no host."""
        path: str = scope["path"]
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        beside = {**scope, "path": other}
        if scope["type"] != "http" or other.startswith("//") or not _note_route(scope, beside):
            await not_found(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        await RedirectResponse(quote(other) + (f"?{query}" if query else ""))(scope, receive, send)

    return redirect


async def _documentation(request: Request) -> Response:
    """`/`, unless the application has something there itself."""
    if request.app.docs_url is None:
        raise HTTPException(404)
    return RedirectResponse(request.scope.get("root_path", "") + request.app.docs_url)
