"""What a body may be: JSON, as it is."""

from __future__ import annotations

import re

from fastapi import Request

from app.http import problems
from app.http.problems import Problem

_JSON = re.compile(rb"application/(?:[a-z0-9!#$&^_.+-]+\+)?json", re.IGNORECASE)


def require_json(request: Request) -> None:
    """Refuse a body that isn't JSON, or is packed. Raises `Problem` (415)."""
    headers = dict(reversed(request.scope["headers"]))  # the first of each name counts
    if b"transfer-encoding" not in headers and not headers.get(b"content-length", b"").strip(b"0"):
        return  # no body: that it is missing is for the schema to say
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        message = "Content-Encoding: bodies are taken uncompressed only"
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, message, headers={"Accept-Encoding": "identity"})
    if _JSON.fullmatch(headers.get(b"content-type", b"").partition(b";")[0].strip()) is None:
        accepted = {f"Accept-{request.method.capitalize()}": "application/json"}
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, "Content-Type: allowed is application/json", headers=accepted)
