"""The users' HTTP interface."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Annotated, Any

from bson import ObjectId
from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pymongo.errors import WriteError

from app.http import errors, problems
from app.http.etags import unchanged, versions
from app.http.problems import Problem, documented
from app.security import PROTECTED, GuardedRoute
from app.users.listing import Listing
from app.users.model import BULK_LIMIT, BulkItem, BulkOutcome, NewUser, Page, User, UserChange
from app.users.repository import Users

log = logging.getLogger(__name__)

router = APIRouter(prefix="/users", tags=["users"], route_class=GuardedRoute)


_users_of = lru_cache(maxsize=1)(Users)


def _users(request: Request) -> Users:
    """The users of this worker; no dependency of FastAPI's, which would cost more than the route itself."""
    return _users_of(request.app.state.sluice)


MOST_WRONG = 10
"""Fields of one user of a bulk that its answer says are wrong."""
ID_PATTERN = "^[0-9a-fA-F]{24}$"
_is_id = re.compile(ID_PATTERN).fullmatch
ID_EXAMPLES = ["66f1a2b3c4d5e6f7a8b9c0d1"]
UserId = Annotated[str, Path(alias="id", pattern=ID_PATTERN, examples=ID_EXAMPLES)]
IfMatch = Annotated[str | None, Header(description='The version that you know, as its ETag said: `"3"`, or `*`')]
READ_BY_HAND = [
    {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": ID_PATTERN, "examples": ID_EXAMPLES},
    },
    {
        "name": "If-None-Match",
        "in": "header",
        "schema": {"type": "string"},
        "description": "The ETag that you have: 304 if it is still right",
    },
]
"""What the busiest route takes. As parameters of its function each would cost a tenth of the whole request."""


@router.get(
    "/{id}",
    response_model=User,
    openapi_extra={"parameters": READ_BY_HAND},
    responses={304: {"description": "Not changed"}, **documented(404, 422, 503, 504)},
)
async def read_user(request: Request) -> Response:
    """Read a user."""
    user_id = request.path_params["id"]
    if _is_id(user_id) is None:
        details = {
            "loc": ("path", "id"),
            "msg": f"String should match pattern '{ID_PATTERN}'",
            "type": "string_pattern_mismatch",
        }
        raise RequestValidationError([details])
    user = await _users(request).get(ObjectId(user_id))
    if user is None:
        raise _missing(user_id)
    headers = {"ETag": user.etag}
    if unchanged(request.headers.get("if-none-match"), user.etag):
        return Response(None, 304, headers)
    return _json(user, 200, headers)


@router.post(
    "",
    status_code=201,
    response_model=User,
    dependencies=PROTECTED,
    responses=documented(401, 409, 413, 415, 422, 503, 504),
)
async def create_user(request: Request, new: NewUser) -> Response:
    """Create a user. `Location` says where it is, `ETag` its version."""
    user = await _users(request).create(new)
    return _json(user, 201, {"Location": f"/users/{user.id}", "ETag": user.etag})


@router.post(
    "/bulk",
    status_code=201,
    response_model=BulkOutcome,
    dependencies=PROTECTED,
    responses={
        207: {"model": BulkOutcome, "description": "Some were not created"},
        **documented(401, 413, 415, 422, 503, 504),
    },
)
async def create_users(
    request: Request,
    items: Annotated[list[dict[str, Any]], Body(embed=True, alias="users", min_length=1, max_length=BULK_LIMIT)],
) -> Response:
    """Create many users at once; each succeeds or fails by itself. 201 when all were created, else 207."""
    outcomes: list[BulkItem] = []
    fitting: list[tuple[int, NewUser]] = []
    for index, item in enumerate(items):
        try:
            fitting.append((index, NewUser.model_validate(item)))
        except ValidationError as error:
            outcomes.append(BulkItem(index=index, status=422, detail=_what_is_wrong(error)))
    results = await _users(request).create_many([new for _, new in fitting]) if fitting else []
    if unusual := [result for result in results if isinstance(result, WriteError) and not errors.is_callers(result)]:
        log.error("%d users of a bulk were not created: %s", len(unusual), errors.summary(unusual[-1]))
    outcomes += [_outcome(index, result) for (index, _), result in zip(fitting, results, strict=True)]
    outcomes.sort(key=lambda outcome: outcome.index)
    created = sum(outcome.status == 201 for outcome in outcomes)
    failed = len(outcomes) - created
    return _json(BulkOutcome(created=created, failed=failed, items=outcomes), 207 if failed else 201)


@router.get("", response_model=Page, responses=documented(422, 503, 504))
async def list_users(request: Request, listing: Annotated[Listing, Query()]) -> Response:
    """List users page by page: send `next_cursor` back as `cursor`, with the same filters and order."""
    return _json(await _users(request).list(listing))


@router.patch(
    "/{id}",
    response_model=User,
    dependencies=PROTECTED,
    responses=documented(400, 401, 404, 409, 412, 413, 415, 422, 428, 503, 504),
)
async def update_user(request: Request, user_id: UserId, change: UserChange, if_match: IfMatch = None) -> Response:
    """Change some fields, unless somebody else changed the user meanwhile: If-Match names the version you saw."""
    if if_match is None:
        raise Problem(problems.PRECONDITION_REQUIRED, "If-Match is needed: the ETag that you read, or * for any")
    user = await _users(request).update(ObjectId(user_id), change, versions(if_match))
    if user is None:
        raise await _mismatch(_users(request), user_id)
    return _json(user, 200, {"ETag": user.etag})


@router.delete(
    "/{id}", status_code=204, dependencies=PROTECTED, responses=documented(400, 401, 404, 412, 422, 503, 504)
)
async def delete_user(request: Request, user_id: UserId, if_match: IfMatch = None) -> Response:
    """Delete a user, with If-Match only the version that you saw."""
    if not await _users(request).delete(ObjectId(user_id), None if if_match is None else versions(if_match)):
        raise await _mismatch(_users(request), user_id)
    return Response(None, 204)


def _json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Serialised here, once: FastAPI would check and convert it a second time."""
    return Response(body.__pydantic_serializer__.to_json(body), status, headers, "application/json")


def _missing(user_id: str) -> Problem:
    return Problem(problems.NOT_FOUND, f"there is no user {user_id}")


async def _mismatch(users: Users, user_id: str) -> Problem:
    """Why nothing was changed: no such user, or another version of it."""
    user = await users.get(ObjectId(user_id))
    if user is None:
        return _missing(user_id)
    return Problem(
        problems.PRECONDITION_FAILED, f"the user is now at version {user.version}", headers={"ETag": user.etag}
    )


def _outcome(index: int, result: ObjectId | WriteError) -> BulkItem:
    if isinstance(result, ObjectId):
        return BulkItem(index=index, status=201, id=str(result))
    problem = errors.problem_of(result, "POST")
    return BulkItem(index=index, status=problem.kind.status, detail=problem.detail)


def _what_is_wrong(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_WRONG]
    return "; ".join(f"{'.'.join(map(str, details['loc'])) or 'user'}: {details['msg']}" for details in found)
