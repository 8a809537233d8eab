"""Where a path leads that has no route: to its neighbour with another slash, and `/` to the documentation."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.methods import note_route


def install(app: FastAPI) -> None:
    """Redirect where the app has nothing of its own, whenever its routes were added."""
    router = app.router
    router.redirect_slashes = False  # such a redirect names scheme and host, of which not every proxy tells
    router.default = Router(
        [Route("/", _documentation)], redirect_slashes=False, default=_or_other_slash(router.default)
    )


def _or_other_slash(not_found: ASGIApp) -> ASGIApp:
    async def redirect(scope: Scope, receive: Receive, send: Send) -> None:
        """To the same path with a slash at its end, or without, if something is there; naming no scheme and no host."""
        path: str = scope["path"]
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        beside = {**scope, "path": other}
        if scope["type"] != "http" or other.startswith("//") or not note_route(scope, beside):
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
