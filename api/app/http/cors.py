"""CORS, where `CORS_ORIGINS` says who may use the API from a browser; else nothing is added."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.http import problems
from app.http.methods import METHODS
from app.http.problems import Problem

EXPOSED = (
    "Allow",
    "ETag",
    "Location",
    "Retry-After",
    "Server-Timing",
    "traceparent",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""What a page may read of an answer's headers, beside those that it always may."""


def middleware(origins: Sequence[str]) -> list[Middleware]:
    """Lets pages of these origins (`*`: of all) use the app; nothing where there are none.

    Keys travel in headers, never in cookies; so a page can only do what whoever wrote it has the key for.
    """
    if not origins:
        return []
    return [
        Middleware(
            Cors,
            allow_origins=tuple(origins),
            allow_methods=[method for method in METHODS if method != "TRACE"],  # which no browser sends
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    ]


class Cors(CORSMiddleware):
    """Starlette's, which refuses a preflight in plain text."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight; a refusal is a problem like any other."""
        answer = super().preflight_response(request_headers)
        return answer if answer.status_code == 200 else _Refusal(answer)


class _Refusal(Response):
    def __init__(self, refusal: Response) -> None:
        super().__init__()
        own = {"content-length", "content-type"}
        headers = {name: value for name, value in refusal.headers.items() if name not in own}
        self._problem = Problem(problems.BAD_REQUEST, bytes(refusal.body).decode(), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await problems.response(HTTPConnection(scope), self._problem)(scope, receive, send)
