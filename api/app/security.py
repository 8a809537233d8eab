"""The API key, where one is set."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.http import problems
from app.http.dispatch import Checks
from app.http.problems import Problem

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


async def _ask_before_reading(request: Request) -> None:
    await require_api_key(request, await _header(request), await _bearer(request))


BEFORE_THE_BODY: Checks = {require_api_key: _ask_before_reading}
"""What is asked before a body is read where a route depends on it; FastAPI asks after that, whom it tells first what
is wrong with the body."""
