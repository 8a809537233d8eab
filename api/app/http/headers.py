"""Headers of answers, as the API's document describes them."""

from __future__ import annotations

from typing import Any

HEADERS: dict[str, dict[str, Any]] = {
    "Allow": {"description": "The methods that this path has.", "schema": {"type": "string"}},
    "ETag": {
        "description": "The version: send it back as If-Match or If-None-Match.",
        "schema": {"type": "string", "examples": ['"3"']},
    },
    "Location": {"description": "Where it is now: a path.", "schema": {"type": "string", "format": "uri-reference"}},
    "Retry-After": {
        "description": "Seconds after which repeating the request helps; only where that is safe.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {"description": "How to say who asks.", "schema": {"type": "string"}},
    "X-Request-ID": {
        "description": "The request's id, as the logs have it: the caller's own, or a new one.",
        "schema": {"type": "string"},
    },
}
"""By name; a resource may add its own."""


def sends(*names: str, description: str = "") -> dict[str, Any]:
    """One of a route's `responses`, with these of `HEADERS`: `responses={200: sends("ETag")}`.

    Raises `ValueError` for one that isn't there.
    """
    if unknown := set(names) - HEADERS.keys():
        raise ValueError(f"{', '.join(sorted(unknown))}: not described in app.http.headers.HEADERS")
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"headers": headers} | ({"description": description} if description else {})
