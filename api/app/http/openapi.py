"""The API's document: what FastAPI can't see in the routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.http.problems import ProblemDetails


def install(app: FastAPI) -> None:
    """Put the problem's schema, which routes refer to, into the document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("ProblemDetails", ProblemDetails.model_json_schema())
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
