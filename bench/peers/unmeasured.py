"""Sluice without what it knows about itself: no HTTP metrics, request context, access log or operation times."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from app.main import serve
from app.metrics import HttpMetrics
from app.middleware import Context
from sluice.client import Sluice


def _untimed(sluice: Sluice, collection: str, name: str) -> AbstractContextManager[None]:
    return nullcontext()


def is_measuring(middleware: object) -> bool:
    return middleware is HttpMetrics or middleware is Context


Sluice.operation = _untimed  # type: ignore[method-assign, assignment]
app = serve()
app.user_middleware = [each for each in app.user_middleware if not is_measuring(each.cls)]
