"""Lists of users: filters, sorting, and cursors that continue where a page ended (keyset pagination)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from bson import ObjectId
from bson.errors import InvalidId
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from app.http import problems
from app.http.problems import Problem
from app.users.model import Email

Sort = Literal["created_at", "-created_at", "name", "-name", "age", "-age"]
_SORT_NAMES: list[JsonValue] = [
    "created_at",
    "created_at_descending",
    "name",
    "name_descending",
    "age",
    "age_descending",
]
"""For generated clients, which can't make names of a `-`."""
Document = dict[str, Any]
CURSOR = "^[A-Za-z0-9_-]+$"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
"""As MongoDB keeps times. In whole numbers: as a float of seconds, some are another one."""
INT64 = 1 << 63
"""What MongoDB's integers stay below."""


class Listing(BaseModel):
    """Which users to list, and in which order. Filters are read as creating reads the same fields."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[
        str | None,
        Field(max_length=2_000, description="`next_cursor` of the page before", json_schema_extra={"pattern": CURSOR}),
    ] = None
    sort: Annotated[
        Sort,
        Field(description="A leading `-` turns the order around", json_schema_extra={"x-enum-varnames": _SORT_NAMES}),
    ] = "created_at"
    email: Email | None = None
    city: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] | None = None
    tag: Annotated[str, StringConstraints(strip_whitespace=True, max_length=50)] | None = None
    min_age: Annotated[int | None, Field(ge=0, le=150)] = None
    max_age: Annotated[int | None, Field(ge=0, le=150)] = None

    @property
    def field(self) -> str:
        return self.sort.lstrip("-")

    @property
    def direction(self) -> int:
        return -1 if self.sort.startswith("-") else 1

    @property
    def order(self) -> list[tuple[str, int]]:
        """The `_id` makes the order total, so that pages neither repeat nor skip anyone."""
        return [(self.field, self.direction), ("_id", self.direction)]

    def query(self) -> Document:
        """The filter for the page. Raises `Problem` (422) for a cursor that isn't one of this order."""
        query: Document = {}
        for field, value in (("email", self.email), ("city", self.city), ("tags", self.tag)):
            if value is not None:
                query[field] = value
        ages = {"$gte": self.min_age, "$lte": self.max_age}
        if bounds := {operator: age for operator, age in ages.items() if age is not None}:
            query["age"] = bounds
        if self.cursor is not None:
            query = {"$and": [query, self._after(*self._decoded(self.cursor))]}
        return query

    def next_cursor(self, last: Document) -> str:
        """The cursor that continues after this document."""
        value = last.get(self.field)
        if isinstance(value, datetime):
            value = _milliseconds(value)
        # Not escaped: of a long name in another script, that would be longer than a cursor may be.
        text = json.dumps([self.sort, value, str(last["_id"])], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _decoded(self, cursor: str) -> tuple[Any, ObjectId]:
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
            sort, value, last_id = json.loads(text)
            return self._checked(sort, value), ObjectId(last_id if isinstance(last_id, str) else "")
        except (ValueError, TypeError, OverflowError, OSError, RecursionError, InvalidId):
            message = f"allowed is the next_cursor of a page with sort={self.sort}"
            errors = [{"field": "query.cursor", "message": message, "type": "cursor"}]
            raise Problem(problems.INVALID, message, extra={"errors": errors}) from None

    def _checked(self, sort: Any, value: Any) -> Any:
        match self.field if sort == self.sort else None, value:
            case "created_at", int() if not isinstance(value, bool):
                return _EPOCH + value * _MILLISECOND
            case "name", str():
                return value.encode().decode()  # half of a surrogate pair, which JSON lets pass, can't be asked for
            case "age", None:
                return value
            case "age", int() if not isinstance(value, bool) and abs(value) < INT64:
                return value
        raise ValueError(value)

    def _after(self, value: Any, last_id: ObjectId) -> Document:
        """What comes after (`value`, `last_id`).

        As alternatives that an index can answer each, merged in order. Comparisons in MongoDB see values of one type
        only, and null sorts before everything: users without an age need words of their own.
        """
        beyond = "$gt" if self.direction == 1 else "$lt"
        alternatives: list[Document] = [{self.field: value, "_id": {beyond: last_id}}]
        if value is not None:
            alternatives.append({self.field: {beyond: value}})
        if self.field == "age" and value is None and self.direction == 1:
            alternatives.append({"age": {"$gt": -1}})
        if self.field == "age" and value is not None and self.direction == -1:
            alternatives.append({"age": None})
        return {"$or": alternatives}


def _milliseconds(moment: datetime) -> int:
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
