"""What the templates answer, in the style of MongoDB's own FastAPI examples, and the same indexes as Sluice's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.users.repository import INDEXES as INDEXES

PyObjectId = Annotated[str, BeforeValidator(str)]


class UserOut(BaseModel):
    """A user as stored."""

    model_config = ConfigDict(populate_by_name=True)

    id: PyObjectId = Field(alias="_id")
    email: str
    name: str
    age: int | None = None
    city: str | None = None
    tags: list[str] = []
    created_at: datetime
    updated_at: datetime
    version: int


class UserList(BaseModel):
    items: list[UserOut]


class BulkOut(BaseModel):
    created: int
    ids: list[str]
