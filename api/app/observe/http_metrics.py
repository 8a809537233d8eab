"""Request counts and durations by route, over all workers: prometheus-fastapi-instrumentator's, by a leaner middleware.

The instrumentator's own matches the routes a second time and copies the answer, which costs three times as much. What
it is told to do with each request it does here: `instrumentator.add(yours)`, as its documentation says.
"""

from __future__ import annotations

import time

from prometheus_client import Counter, Histogram
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from prometheus_fastapi_instrumentator.routing import get_route_name
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.methods import METHODS, OTHER_METHOD
from app.http.routing import NO_ROUTE, template, under

REQUESTS = Counter("http_requests_total", "Requests.", ("method", "status", "handler"))
DURATION = Histogram(
    "http_request_duration_seconds",
    "Seconds until the answer began.",
    ("method", "handler"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_children: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

is_unmeasured = under("/metrics", "/health")
"""Paths that would only blur how long callers wait."""


def count(info: Info) -> None:
    """One request."""
    labels = (info.method, info.modified_status, info.modified_handler)
    found = _children.get(labels)  # `labels()` costs as much as counting
    if found is None:
        found = (REQUESTS.labels(*labels), DURATION.labels(info.method, info.modified_handler))
        _children[labels] = found
    found[0].inc()
    found[1].observe(info.modified_duration_without_streaming)


instrumentator = Instrumentator().add(count)


class HttpMetrics:
    """Tells the instrumentator's functions of each request that has been answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_unmeasured(scope["path"]):
            await self.app(scope, receive, send)
            return
        answer: Message = {"status": 500}
        began, answered = time.perf_counter(), None

        async def watch(message: Message) -> None:
            nonlocal answer, answered
            if message["type"] == "http.response.start":
                answer, answered = message, time.perf_counter()
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            request, status, ended = Request(scope), answer["status"], time.perf_counter()
            only_counted = instrumentator.instrumentations == [count]
            info = Info(
                request,
                None if only_counted else Response(None, status, Headers(raw=answer.get("headers", []))),
                _method(scope, status),
                _handler(scope, request),
                f"{status // 100}xx",
                ended - began,
                (ended if answered is None else answered) - began,
            )
            for instrumentation in instrumentator.instrumentations:
                instrumentation(info)
            for asynchronous in instrumentator.async_instrumentations:
                await asynchronous(info)


def _method(scope: Scope, status: int) -> str:
    """The request's method; a caller may invent as many as it likes, of which those that nobody knows are one."""
    method: str = scope["method"]
    return method if status < 300 or method in METHODS else OTHER_METHOD


def _handler(scope: Scope, request: Request) -> str:
    """The template of the request's route, also where it was refused before the routes were asked."""
    known = template(scope)
    return known if known != NO_ROUTE else get_route_name(request, should_include_root_path=False) or NO_ROUTE
