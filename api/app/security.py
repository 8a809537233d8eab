"""The API key, where one is set."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.http import problems
from app.http.problems import Problem
from app.http.routing import DirectRoute

_header = APIKeyHeader(name="X-API-Key", auto_error=False)
_bearer = HTTPBearer(auto_error=False)


async def require_api_key(
    request: Request,
    key: Annotated[str | None, Depends(_header)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Refuse a request without the service's API key; let everyone in where none is set."""
    expected = request.app.state.settings.api_key
    if expected is None:
        return
    given = key or (bearer.credentials if bearer is not None else "")
    if not hmac.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise Problem(
            problems.UNAUTHORIZED,
            "this needs the API key, in X-API-Key or as a bearer token",
            headers={"WWW-Authenticate": "Bearer"},
        )


PROTECTED = [Depends(require_api_key)]
"""Dependencies of a route that changes something; its router's `route_class` is `GuardedRoute`."""


class GuardedRoute(DirectRoute):
    """Asks for the key before anything else where a route is `PROTECTED`; FastAPI itself would read the body first."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if all(dependency.dependency is not require_api_key for dependency in self.dependencies):
            return handle

        async def ask_first(request: Request) -> Response:
            await require_api_key(request, await _header(request), await _bearer(request))
            return await handle(request)

        return ask_first
