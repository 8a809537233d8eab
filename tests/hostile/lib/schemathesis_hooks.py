"""What no schema can say of a request that is to be right: a cursor is one of its own order, a key is new, and nobody's
address is in a domain that nobody can have. What was wrongly taken for wrong is in `DROPPED`, and what succeeded in
`SUCCEEDED`."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import schemathesis
from bson import ObjectId
from email_validator import SPECIAL_USE_DOMAIN_NAMES
from hypothesis import strategies
from pydantic import ValidationError
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation

from app.http.idempotency_key import HEADER
from app.http.problems import Problem
from app.users.listing import Listing

SUCCEEDED = Path("succeeded")
"""A line for each answer of 2xx, with its operation; where schemathesis runs."""
DROPPED = Path("dropped")
"""A line for each finding that is none, with its body."""
JSON = "application/json"


def _may_be_somebodys(email: str) -> bool:
    return email.rpartition(".")[2].lower() not in SPECIAL_USE_DOMAIN_NAMES


schemathesis.openapi.format("email", strategies.emails().filter(_may_be_somebodys))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.headers and HEADER in case.headers:
        case.headers[HEADER] = str(uuid.uuid4())
    if case.headers and case.headers.get("If-Match") == "":  # which the pattern forbids: a fault of its coverage phase
        case.headers["If-Match"] = "*"
    if case.query and "cursor" in case.query and not _is_understood(case.query):
        last = {"created_at": datetime.now(UTC), "name": "Ada", "age": 36, "_id": ObjectId()}
        case.query["cursor"] = Listing(sort=case.query.get("sort", "created_at")).next_cursor(last)


def _is_understood(query: dict[str, Any]) -> bool:
    try:
        Listing.model_validate(query).query()
    except (Problem, ValidationError):
        return False
    return True


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
) -> None:
    if 200 <= response.status_code < 300:
        with SUCCEEDED.open("a") as file:
            file.write(f"{case.operation.label}\n")


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: schemathesis.Response,
) -> bool:
    """Of a body that it has made wrong, schemathesis doesn't always see that it became another right one."""
    body = response.request.body
    if not isinstance(failure, AcceptedNegativeData) or not _only_body_is_wrong(case):
        return True
    operation = case.operation
    if not isinstance(body, str | bytes) or not fits(
        operation.schema.raw_schema, operation.path, operation.method, body
    ):
        return True
    with DROPPED.open("a") as file:
        file.write(f"{operation.label} {body!r}\n")
    return False


def _only_body_is_wrong(case: schemathesis.Case[Any]) -> bool:
    assert case.meta is not None
    wrong = [where for where, component in case.meta.components.items() if component.mode.is_negative]
    return wrong == [ParameterLocation.BODY] and case.media_type == JSON


def fits(document: dict[str, Any], path: str, method: str, body: str | bytes) -> bool:
    """Whether the API's document allows this JSON, which it may not even be."""
    schema = document["paths"][path][method.lower()]["requestBody"]["content"][JSON]["schema"]
    try:
        value = json.loads(body)
    except ValueError:
        return False
    return jsonschema_rs.Draft202012Validator(document | schema, validate_formats=True).is_valid(value)
