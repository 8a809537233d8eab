"""The API's document: what FastAPI can't see in the routes, and how clients that are generated from it read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.http.headers import HEADERS, sends
from app.http.problems import ProblemDetails, documented
from app.http.routing import is_unlimited

FRAMEWORKS = ("HTTPValidationError", "ValidationError")
"""How FastAPI reports what is wrong with a request; here it's a problem like any other."""


def operation_id(route: APIRoute) -> str:
    """By tag and function, which generated clients make their names of: `users_create`."""
    return "_".join([*map(str, route.tags[:1]), route.name])


def install(app: FastAPI) -> None:
    """Describe what the machinery adds to every answer, and every problem as it is sent."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(make())
        return make()

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in FRAMEWORKS:
        schemas.pop(name, None)
    problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {}) | {"ProblemDetails": problem}
    for schema in schemas.values():
        _refer(schema, schemas)
    document.setdefault("security", [])  # what an operation needs, it says itself
    used = {"X-Request-ID"}
    for path, operation in _operations(document):
        responses = operation["responses"]
        for status, response in list(responses.items()):
            if FRAMEWORKS[0] in str(response.get("content")):
                responses[status] = documented(int(status))[int(status)]
        for status in (500,) if is_unlimited(path) else (400, 500):  # whatever the route itself answers
            responses.setdefault(str(status), documented(status)[status])
        for response in responses.values():
            for media_type in response.get("content", {}).values():
                if media_type.pop("itemSchema", None):  # of an event stream: OpenAPI 3.2's, in a document of 3.1
                    media_type["schema"] = {"type": "string"}
            headers = response.setdefault("headers", {})
            headers.update(sends("X-Request-ID")["headers"])
            used |= headers.keys()
    components["headers"] = {name: header for name, header in HEADERS.items() if name in used}


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document.get("paths", {}).items():
        yield from ((path, operation) for operation in methods.values() if "responses" in operation)


def _refer(schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Name the models that pydantic repeats inside another, where it skips their validation: generators want names."""
    for key, part in schema.items():
        if isinstance(part, dict):
            name = part.get("title")
            if isinstance(name, str) and part == schemas.get(name):
                schema[key] = {"$ref": f"#/components/schemas/{name}"}
            else:
                _refer(part, schemas)
