"""What no schema can say of a request that is to be right: a cursor is one of its own order, a key is new, and nobody's
address is in a domain that nobody can have."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import schemathesis
from bson import ObjectId
from email_validator import SPECIAL_USE_DOMAIN_NAMES
from hypothesis import strategies
from pydantic import ValidationError

from app.http.idempotency_key import HEADER
from app.http.problems import Problem
from app.users.listing import Listing


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
