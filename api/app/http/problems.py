"""RFC 9457 problem details: the kinds of problem that the API reports, and how one is sent."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.http import context
from app.http.headers import sends

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """What callers can rely on: `type` never changes. `retry_after` in seconds, where repeating later helps; `spread`
    is how many more at most, at random, so that they don't all come back at once."""

    type: str
    status: int
    title: str
    retry_after: int | None = None
    spread: int = 0


_PHRASES = {413: "Content too large", 414: "URI too long", 416: "Range not satisfiable", 422: "Unprocessable content"}
"""RFC 9110's; Python has them from 3.13 on, and a problem's type may not depend on that."""


def of_status(status: int) -> Kind:
    """The kind for a plain HTTP status, such as the framework's own 404 and 405."""
    phrase = _PHRASES.get(status) or HTTPStatus(status).phrase.capitalize()
    return Kind(f"/problems/{phrase.lower().replace(' ', '-')}", status, phrase)


BAD_REQUEST = of_status(400)
UNAUTHORIZED = of_status(401)
NOT_FOUND = of_status(404)
METHOD_NOT_ALLOWED = of_status(405)
CONFLICT = of_status(409)
PRECONDITION_FAILED = of_status(412)
CONTENT_TOO_LARGE = Kind("/problems/content-too-large", 413, "Content too large")
UNSUPPORTED_MEDIA_TYPE = of_status(415)
INVALID = Kind("/problems/invalid", 422, "The request doesn't fit the schema")
PRECONDITION_REQUIRED = of_status(428)
HEADERS_TOO_LARGE = Kind("/problems/headers-too-large", 431, "Headers too large")
INTERNAL = of_status(500)
NOT_IMPLEMENTED = of_status(501)
BUSY = Kind("/problems/busy", 503, "The service is busy", 1)


_HEADERS = {401: ("WWW-Authenticate",), 405: ("Allow",), 412: ("ETag",), 503: ("Retry-After",)}
"""What such answers may have, for the API's document."""


class Problem(HTTPException):
    """Raise it to answer with this problem. `extra` are more members of the body.

    An `HTTPException`, since FastAPI turns whatever else is raised while it reads a body into a 400.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(kind.status, detail, headers)
        self.kind = kind
        self.extra = extra or {}


class WrongField(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str
    type: str


class ProblemDetails(BaseModel):
    """A problem, as every error is reported (RFC 9457): `type` says which, and never changes."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(examples=["/problems/queue-full"])]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="The request's path; not where nginx answers itself.")] = ""
    request_id: str
    errors: Annotated[list[WrongField], Field(description="Of a request that doesn't fit the schema.")] = []


def response(request: HTTPConnection, problem: Problem) -> Response:
    """The answer for a problem."""
    kind = problem.kind
    body = {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "instance": request.scope["path"],
        "request_id": context.request_id.get(),
        **problem.extra,
    }
    headers = dict(problem.headers or {})
    if kind.retry_after is not None:
        headers["Retry-After"] = str(kind.retry_after + random.randint(0, kind.spread))
    # Escaped: what a caller sent may come back in it, broken Unicode included.
    return Response(json.dumps(body, separators=(",", ":")), kind.status, headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, for the API's documentation."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            **sends(*_HEADERS.get(status, ()), description=of_status(status).title),
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }
