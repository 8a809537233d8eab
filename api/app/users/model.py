"""What a user is: for callers, and for the server's own check of every document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from bson import ObjectId
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    StringConstraints,
    model_validator,
    validate_email,
)

BULK_LIMIT = 1_000


def _normalised(email: str) -> str:
    return validate_email(email)[1].lower()


def _whole(number: object) -> object:
    """147.0 is an integer to JSON, which has numbers of one kind only."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


# The length comes first: pydantic's own expression takes quadratic time.
Email = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_normalised)]
"""As it is stored, however it was written."""
_BLANK = r"^[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"
"""Unicode's White_Space, which is stripped."""
_VISIBLE = Field(json_schema_extra={"not": {"pattern": _BLANK}})
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), _VISIBLE]
City = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), _VISIBLE]
Age = Annotated[int, Field(ge=0, le=150), BeforeValidator(_whole)]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=50), _VISIBLE]
Tags = Annotated[list[Tag], Field(max_length=20)]

_EXAMPLE: dict[str, Any] = {
    "email": "ada@example.org",
    "name": "Ada Lovelace",
    "age": 36,
    "city": "London",
    "tags": ["maths"],
}


class NewUser(BaseModel):
    """A user to create. The e-mail address is unique, whatever its case."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"example": _EXAMPLE})

    email: Email
    name: Name
    age: Age | None = None
    city: City | None = None
    tags: Tags = []


def _without_null(schema: dict[str, Any]) -> None:
    (kind,) = (kind for kind in schema.pop("anyOf") if kind != {"type": "null"})
    schema.pop("default")
    schema |= kind


_NOT_REMOVABLE = Field(json_schema_extra=_without_null)
"""`null` isn't in the API's document, and is refused in words."""


class UserChange(BaseModel):
    """What to change of a user: fields that are left out stay, `null` removes an optional one."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"example": {"city": "Paris"}, "minProperties": 1}
    )

    email: Annotated[Email | None, _NOT_REMOVABLE] = None
    name: Annotated[Name | None, _NOT_REMOVABLE] = None
    age: Age | None = None
    city: City | None = None
    tags: Annotated[Tags | None, _NOT_REMOVABLE] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("at least one field to change is needed")
        for name in ("email", "name", "tags"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} can't be removed")
        return self


class User(BaseModel):
    """A user as stored; times in UTC. Its version, which counts its changes, is its ETag."""

    model_config = ConfigDict(
        json_schema_serialization_defaults_required=True,  # a document may lack them, an answer never does
        json_schema_extra={
            "example": {
                "id": "66f1a2b3c4d5e6f7a8b9c0d1",
                **_EXAMPLE,
                "created_at": "2026-11-23T01:49:00.123Z",
                "updated_at": "2026-11-23T01:49:00.123Z",
                "version": 1,
            }
        },
    )

    id: str
    email: str
    name: str
    age: int | None = None
    city: str | None = None
    tags: list[str] = []
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The user that a document of the collection holds. Raises `ValidationError` where it holds something else."""
        key = document["_id"]
        return cls.model_validate({**document, "id": str(key) if isinstance(key, ObjectId) else None}, strict=True)

    @property
    def etag(self) -> str:
        return f'"{self.version}"'


class UserPage(BaseModel):
    """Some users, and where to go on: `next_cursor` is null on the last page.

    `unreadable` counts documents in their midst that are no users.
    """

    items: list[User]
    next_cursor: str | None
    unreadable: int


class UserBulk(BaseModel):
    """Users to create at once."""

    model_config = ConfigDict(extra="forbid")

    # As they were sent: what is wrong with one shall not keep the others from being created.
    users: Annotated[list[SkipValidation[NewUser]], Field(min_length=1, max_length=BULK_LIMIT)]


class UserBulkItem(BaseModel):
    """What became of one user of a bulk: created (201), taken (409), refused (422) or not taken in just now (5xx)."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    index: int
    status: int
    id: str | None = None
    detail: str | None = None


class UserBulkOutcome(BaseModel):
    """What became of each user of a bulk, in the order in which they were sent."""

    created: int
    failed: int
    items: list[UserBulkItem]


SCHEMA: dict[str, Any] = {
    "title": "sluice.users v1",
    "bsonType": "object",
    "required": ["email", "name", "age", "city", "tags", "created_at", "updated_at", "version"],
    "additionalProperties": False,
    "properties": {
        "_id": {"bsonType": "objectId"},
        "email": {"bsonType": "string", "minLength": 3, "maxLength": 254},
        "name": {"bsonType": "string", "minLength": 1, "maxLength": 200},
        "age": {"bsonType": ["int", "null"], "minimum": 0, "maximum": 150},
        "city": {"bsonType": ["string", "null"], "minLength": 1, "maxLength": 100},
        "tags": {"bsonType": "array", "maxItems": 20, "items": {"bsonType": "string", "minLength": 1, "maxLength": 50}},
        "created_at": {"bsonType": "date"},
        "updated_at": {"bsonType": "date"},
        "version": {"bsonType": ["int", "long"], "minimum": 1},
    },
}
"""The `$jsonSchema` of the collection. A change of it needs the next version in its title."""

READABLE: dict[str, Any] = {
    "$jsonSchema": {
        "required": ["email", "name", "created_at", "updated_at", "version"],
        "properties": {
            "_id": {"bsonType": "objectId"},
            "email": {"bsonType": "string"},
            "name": {"bsonType": "string"},
            "age": {"bsonType": ["int", "long", "null"]},
            "city": {"bsonType": ["string", "null"]},
            "tags": {"bsonType": "array", "items": {"bsonType": "string"}},
            "created_at": {"bsonType": "date"},
            "updated_at": {"bsonType": "date"},
            "version": {"bsonType": ["int", "long"]},
        },
    },
    **{
        field: {"$gte": datetime.min.replace(tzinfo=UTC), "$lte": datetime.max.replace(tzinfo=UTC)}
        for field in ("created_at", "updated_at")
    },
}
"""The query for documents that `User.of` takes: also those of an older schema, but not what others put there."""
