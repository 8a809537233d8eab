"""`/connection-stats` is what its schema says, to the last field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.main import create_app
from app.observe.stats import connection_stats, everyone, router
from app.settings.model import Settings
from tests.app.conftest import Client

Make = Callable[..., Settings]


@pytest.fixture
def app(settings: Make) -> FastAPI:
    return create_app(settings(mongodb_url="mongodb://127.0.0.1:1/?replicaSet=rs0"))  # where nothing listens


def answer() -> type[BaseModel]:
    [route] = (route for route in router.routes if getattr(route, "endpoint", None) is connection_stats)
    model: type[BaseModel] = route.response_model  # type: ignore[attr-defined]
    return model


def objects(schemas: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all that it refers to."""
    yield name, schemas[name]
    for part in schemas[name]["properties"].values():
        for reference in (part.get("$ref"), part.get("items", {}).get("$ref")):
            if reference is not None:
                yield from objects(schemas, reference.rpartition("/")[2])


def is_typed(schema: dict[str, Any]) -> bool:
    """To the last field: an object has a name, or says what it has."""
    if "anyOf" in schema:
        return all(is_typed(choice) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return is_typed(schema["items"])
    if schema.get("type") == "object":
        return is_typed(schema["additionalProperties"])
    return "$ref" in schema or schema["type"] in ("string", "integer", "number", "boolean", "null")


def test_every_field_has_a_type_and_is_described(app: FastAPI) -> None:
    schemas = app.openapi()["components"]["schemas"]
    found = dict(objects(schemas, "ConnectionStats"))
    assert found.keys() == {
        "ConnectionStats", "ConnectionPoolStats", "PoolConfig", "Distribution", "MemberPools", "WorkerPools",
        "Coalescing", "MemberView",
    }  # fmt: skip
    for name, schema in found.items():
        assert schema["description"], name
        assert schema["required"] == list(schema["properties"]), name
        for field, part in schema["properties"].items():
            assert part["description"].endswith("."), (name, field)
            assert is_typed(part), (name, field)
    waited = schemas["WorkerPools"]["properties"]["oldest_waiter_seconds"]
    assert waited["description"] == "How long the longest waiter has waited, in seconds."


async def test_the_answer_is_what_the_schema_says(app: FastAPI, client: Client) -> None:
    async with client(app) as http, app.router.lifespan_context(app):
        body = (await http.get("/connection-stats")).content
    read = answer().model_validate_json(body, strict=True)
    assert json.dumps(read.model_dump()) == json.dumps(json.loads(body))  # nothing more, and in the same order


async def test_a_worker_whose_slot_was_deleted_still_knows_of_itself(app: FastAPI, client: Client) -> None:
    async with client(app), app.router.lifespan_context(app):
        sluice = app.state.sluice
        published: Callable[[], None] = sluice.publish

        def publish_and_lose() -> None:
            published()
            for path in Path(sluice.slot.directory).glob("0.*"):
                path.unlink()

        sluice.publish = publish_and_lose
        assert [snapshot.worker for snapshot in await everyone(sluice)] == [0]
