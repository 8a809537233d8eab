"""The users' HTTP interface."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

from bson import ObjectId
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import ValidationError
from pymongo.errors import WriteError

from app.dependencies import OnceDep, SluiceDep
from app.http import errors, problems
from app.http.etags import CONDITION, unchanged, versions
from app.http.headers import sends
from app.http.problems import Problem, documented
from app.security import require_api_key
from app.users.listing import Listing
from app.users.model import NewUser, User, UserBulk, UserBulkItem, UserBulkOutcome, UserChange, UserPage
from app.users.repository import Users

if TYPE_CHECKING:
    from pymongo.asynchronous.client_session import AsyncClientSession

log = logging.getLogger(__name__)

router = APIRouter(prefix="/users", tags=["users"])

MOST_WRONG = 10
"""Fields of one user of a bulk that its answer says are wrong."""
ID_PATTERN = "^[0-9a-fA-F]{24}$"

UserId = Annotated[str, Path(alias="id", pattern=ID_PATTERN, examples=["66f1a2b3c4d5e6f7a8b9c0d1"])]
_if_match = Header(
    alias="If-Match",
    description='The version that you know, as its ETag said: `"3"`, or `*`',
    examples=['"3"', "*"],
    json_schema_extra={"pattern": CONDITION},  # another one is a bad request (400), no wrong field
)
IfMatch = Annotated[str, _if_match]
OptionalIfMatch = Annotated[str | None, _if_match]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="The ETag that you have: 304 if it is still right")
]


async def get_users(sluice: SluiceDep) -> Users:
    """The users, as every route here gets them. Tests may give it others (`app.dependency_overrides`)."""
    return Users(sluice)


UsersDep = Annotated[Users, Depends(get_users)]


@router.get(
    "/{id}",
    response_model=User,
    responses={
        200: sends("ETag"),
        304: sends("ETag", description="Not changed"),
        **documented(404, 409, 422, 503, 504),
    },
)
async def read(
    user_id: UserId, users: UsersDep, response: Response, if_none_match: IfNoneMatch = None
) -> User | Response:
    """Read a user."""
    user = await users.get(ObjectId(user_id))
    if user is None:
        raise _missing(user_id)
    if unchanged(if_none_match, user.etag):
        return Response(status_code=304, headers={"ETag": user.etag})
    response.headers["ETag"] = user.etag
    return user


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(require_api_key)],
    responses={201: sends("Location", "ETag"), **documented(401, 409, 413, 415, 422, 503, 504)},
)
async def create(new: NewUser, users: UsersDep, once: OnceDep, request: Request, response: Response) -> User:
    """Create a user. `Location` says where it is, `ETag` its version."""
    user = await once.do(new, User, lambda session: users.create(new, session))
    response.headers["Location"] = f"{request.url.path}/{user.id}"
    response.headers["ETag"] = user.etag
    return user


@router.post(
    "/bulk",
    status_code=201,
    dependencies=[Depends(require_api_key)],
    responses={
        207: {"model": UserBulkOutcome, "description": "Some were not created"},
        **documented(401, 413, 415, 422, 503, 504),
    },
)
async def create_many(bulk: UserBulk, users: UsersDep, once: OnceDep, response: Response) -> UserBulkOutcome:
    """Create many users at once; each succeeds or fails by itself. 201 when all were created, else 207."""
    outcome = await once.do(bulk, UserBulkOutcome, lambda session: _create_many(bulk, users, session))
    if outcome.failed:
        response.status_code = 207
    return outcome


@router.get("", name="list", responses=documented(422, 503, 504))
async def list_page(listing: Annotated[Listing, Query()], users: UsersDep) -> UserPage:
    """List users page by page: send `next_cursor` back as `cursor`, with the same filters and order."""
    return await users.list(listing)


@router.patch(
    "/{id}",
    dependencies=[Depends(require_api_key)],
    responses={200: sends("ETag"), **documented(401, 404, 409, 412, 413, 415, 422, 428, 503, 504)},
)
async def update(user_id: UserId, change: UserChange, users: UsersDep, response: Response, if_match: IfMatch) -> User:
    """Change some fields, unless somebody else changed the user meanwhile: If-Match names the version you saw."""
    user = await users.update(ObjectId(user_id), change, versions(if_match))
    if user is None:
        raise await _mismatch(users, user_id)
    response.headers["ETag"] = user.etag
    return user


@router.delete(
    "/{id}",
    status_code=204,
    dependencies=[Depends(require_api_key)],
    responses=documented(401, 404, 409, 412, 422, 503, 504),
)
async def delete(user_id: UserId, users: UsersDep, if_match: OptionalIfMatch = None) -> None:
    """Delete a user, with If-Match only the version that you saw."""
    if not await users.delete(ObjectId(user_id), None if if_match is None else versions(if_match)):
        raise await _mismatch(users, user_id)


async def _create_many(bulk: UserBulk, users: Users, session: AsyncClientSession | None) -> UserBulkOutcome:
    outcomes: list[UserBulkItem] = []
    fitting: list[tuple[int, NewUser]] = []
    for index, item in enumerate(bulk.users):
        try:
            fitting.append((index, NewUser.model_validate(item)))
        except ValidationError as error:
            outcomes.append(UserBulkItem(index=index, status=422, detail=_what_is_wrong(error)))
    results = await users.create_many([new for _, new in fitting], session) if fitting else []
    if unusual := [result for result in results if isinstance(result, WriteError) and not errors.is_callers(result)]:
        log.error("%d users of a bulk were not created: %s", len(unusual), errors.summary(unusual[-1]))
    outcomes += [_outcome(index, result) for (index, _), result in zip(fitting, results, strict=True)]
    outcomes.sort(key=lambda outcome: outcome.index)
    created = sum(outcome.status == 201 for outcome in outcomes)
    return UserBulkOutcome(created=created, failed=len(outcomes) - created, items=outcomes)


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


def _outcome(index: int, result: ObjectId | WriteError) -> UserBulkItem:
    if isinstance(result, ObjectId):
        return UserBulkItem(index=index, status=201, id=str(result))
    problem = errors.problem_of(result, "POST")
    return UserBulkItem(index=index, status=problem.kind.status, detail=problem.detail)


def _what_is_wrong(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MOST_WRONG]
    return "; ".join(f"{'.'.join(map(str, details['loc'])) or 'user'}: {details['msg']}" for details in found)
