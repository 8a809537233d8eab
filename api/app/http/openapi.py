"""The API's document: what FastAPI can't see in the routes, and how clients that are generated from it read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.http.headers import HEADERS, sends
from app.http.problems import MEDIA_TYPE, ProblemDetails, documented

FRAMEWORKS = ("HTTPValidationError", "ValidationError")
"""How FastAPI reports what is wrong with a request; here it's a problem like any other."""
ANYWHERE = (400, 408, 413, 414, 431, 500, 503, 504)
"""What any request may be answered, whatever its route says: it is malformed, too slow or too large, or nginx finds too
many in progress or nobody to give it to."""


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
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            _without_null(parameter["schema"])
        responses = operation["responses"]
        for status, response in list(responses.items()):
            if FRAMEWORKS[0] in str(response.get("content")):
                responses[status] = documented(int(status))[int(status)]
        for status in ANYWHERE:
            described = documented(status)[status]
            content = responses.setdefault(str(status), described).setdefault("content", {})
            content.setdefault(MEDIA_TYPE, described["content"][MEDIA_TYPE])
        for response in responses.values():
            for media_type in response.get("content", {}).values():
                if media_type.pop("itemSchema", None):  # of an event stream: OpenAPI 3.2's, in a document of 3.1
                    media_type["schema"] = {"type": "string"}
            headers = response.setdefault("headers", {})
            headers.update(sends("X-Request-ID")["headers"])
            used |= headers.keys()
    components["headers"] = {name: header for name, header in HEADERS.items() if name in used}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document.get("paths", {}).values():
        yield from (operation for operation in methods.values() if "responses" in operation)


def _without_null(schema: dict[str, Any]) -> None:
    """A parameter is a text or isn't there: `null` would be one of four letters."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]


def _refer(schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Name the models that pydantic repeats inside another, where it skips their validation: generators want names."""
    for key, part in schema.items():
        if isinstance(part, dict):
            name = part.get("title")
            if isinstance(name, str) and part == schemas.get(name):
                schema[key] = {"$ref": f"#/components/schemas/{name}"}
            else:
                _refer(part, schemas)
