"""Sluice with one more route, which needs no database: what everything around an operation leaves room for."""

from __future__ import annotations

from fastapi import Response

from app.main import serve

_ANSWER = (
    b'{"id":"66f1a2b3c4d5e6f7a8b9c0d1","email":"user1234@example.org","name":"User Number 1234","age":36,'
    b'"city":"London","tags":["maths","news"],"created_at":"2026-01-01T00:20:34Z",'
    b'"updated_at":"2026-01-01T00:20:34Z","version":1}'
)

app = serve()


@app.get("/ceiling", response_class=Response)
async def ceiling() -> Response:
    """As large as a user."""
    return Response(_ANSWER, 200, {"ETag": '"1"'}, "application/json")
