"""FastAPI on PyMongo's asynchronous API in the usual template style: a client with its defaults, response models.

Its requests are checked by the very models that Sluice's are, and the answers have the same fields.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

from bson import ObjectId
from fastapi import Body, FastAPI, HTTPException, Query
from pymongo import AsyncMongoClient
from pymongo.errors import BulkWriteError, DuplicateKeyError

from app.users.model import BULK_LIMIT, NewUser
from bench.peers.models import INDEXES, BulkOut, UserList, UserOut

client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["MONGODB_URL"])
users = client[os.environ["DATABASE_NAME"]].users


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await users.create_indexes(INDEXES)
    yield
    await client.close()


app = FastAPI(title="Template on PyMongo", lifespan=lifespan)


@app.get("/health/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.get("/users/{user_id}", response_model=UserOut, response_model_by_alias=False)
async def read_user(user_id: str) -> Any:
    if not ObjectId.is_valid(user_id):
        raise HTTPException(422, "not an id")
    user = await users.find_one({"_id": ObjectId(user_id)})
    if user is None:
        raise HTTPException(404, "no such user")
    return user


@app.get("/users", response_model=UserList, response_model_by_alias=False)
async def list_users(
    skip: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=100)] = 20, city: str | None = None
) -> Any:
    query = {} if city is None else {"city": city}
    cursor = users.find(query).sort([("created_at", 1), ("_id", 1)]).skip(skip).limit(limit)
    return {"items": await cursor.to_list(limit)}


@app.post("/users", status_code=201, response_model=UserOut, response_model_by_alias=False)
async def create_user(new: NewUser) -> Any:
    now = datetime.now(UTC)
    document = {**new.model_dump(), "created_at": now, "updated_at": now, "version": 1}
    try:
        await users.insert_one(document)
    except DuplicateKeyError:
        raise HTTPException(409, "this email is taken") from None
    return document


@app.post("/users/bulk", status_code=201, response_model=BulkOut)
async def create_users(new: Annotated[list[NewUser], Body(embed=True, alias="users", max_length=BULK_LIMIT)]) -> Any:
    now = datetime.now(UTC)
    documents = [{**user.model_dump(), "created_at": now, "updated_at": now, "version": 1} for user in new]
    try:
        result = await users.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        raise HTTPException(409, f"{len(error.details['writeErrors'])} not created") from None
    return {"created": len(result.inserted_ids), "ids": [str(inserted) for inserted in result.inserted_ids]}
