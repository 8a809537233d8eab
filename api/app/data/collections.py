"""Make a resource's collection what it must be, and leave alone what isn't the resource's.

A collection is ours if its schema has our title. One that isn't there, or is as empty as if it had just been made,
becomes ours; one that has all of our indexes is ours, too, whatever became of its schema. Any other belongs to somebody
else, and is neither changed nor written to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pymongo import IndexModel
from pymongo.errors import ExecutionTimeout, OperationFailure, WriteConcernError

from app.http.errors import DUPLICATE_KEY
from sluice import NotPrepared, brief

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.asynchronous.database import AsyncDatabase

Document = dict[str, Any]

NAMESPACE_EXISTS = 48
INDEX_CONFLICTS = frozenset({85, 86})
_TITLE = re.compile(r"(.+) v(\d{1,9})")


async def ensure(
    database: AsyncDatabase[Document], name: str, *, schema: Document, indexes: Sequence[IndexModel]
) -> str | None:
    """Make the collection, its schema and its indexes what they should be; changes nothing that already is.

    The schema's `title` says whose the collection is, and ends with a version (`sluice.users v1`): an older one is
    replaced, a newer one stays, since newer workers run beside this one. Raises `NotPrepared` where the collection is
    somebody else's, or a unique index can't be made; what else can't be had is returned, in words. `ValueError` for a
    schema without such a title.
    """
    if _name(schema.get("title")) is None:
        raise ValueError(f"the schema of {name} needs a title such as 'sluice.{name} v1'")
    listed = await database.command("listCollections", filter={"name": name})
    found = listed["cursor"]["firstBatch"]
    if found and (reason := await _whose(database[name], found[0], schema, indexes)):
        raise NotPrepared(
            f"collection {name} of database {database.name} isn't this service's: {reason}. It is left alone. Choose"
            " another DATABASE_NAME, rename the collection, or see docs/troubleshooting.md to adopt it"
        )
    if found:
        no_schema = await _upgrade(database, name, found[0]["options"], schema)
    else:
        no_schema = await _create(database, name, schema)
    unique = [index for index in indexes if index.document.get("unique")]
    others = [index for index in indexes if not index.document.get("unique")]
    if unique and (reason := await _build(database[name], unique)):
        raise NotPrepared(f"collection {name}: {reason}")
    no_index = await _build(database[name], others) if others else None
    missing = "; ".join(filter(None, (no_schema, no_index)))
    return f"collection {name}: {missing}" if missing else None


async def _whose(
    collection: AsyncCollection[Document], found: Document, schema: Document, indexes: Sequence[IndexModel]
) -> str | None:
    """Why the collection isn't ours; None if it is."""
    if (kind := found.get("type", "collection")) != "collection":
        return f"it is a {kind}"
    validator = found["options"].get("validator") or {}
    title, theirs = schema["title"], _schema_of(validator).get("title")
    if _name(theirs) == _name(title):
        return None
    ours = {index.document["name"]: dict(index.document["key"]) for index in indexes}
    # Whether it is empty, first: who fills one of ours has made its indexes before.
    empty = await collection.find_one({}, {"_id": True}) is None
    built = {
        index: dict(described["key"])
        for index, described in (await collection.index_information()).items()
        if index != "_id_"
    }
    if ours.items() <= built.items():
        return None
    if validator:
        return f"its schema isn't ours ({theirs or 'without a title'}, not {title})"
    if not empty:
        return f"it has documents, and no schema of ours ({title})"
    if not built.items() <= ours.items():
        return f"it has indexes of others ({', '.join(sorted(built.keys() - ours.keys()) or sorted(built))})"
    if others := sorted(found["options"].keys() - {"validator", "validationLevel", "validationAction"}):
        return f"it was made with options of others ({', '.join(others)})"
    return None


async def _create(database: AsyncDatabase[Document], name: str, schema: Document) -> str | None:
    """With its schema; what is missing where the server takes none."""
    try:
        await database.command("create", name, validator={"$jsonSchema": schema})
    except OperationFailure as error:
        _raise_if_passing(error)
        if error.code != NAMESPACE_EXISTS:  # then another worker was first
            return f"it has no schema, since that can't be set: {brief(error)}"
    return None


async def _upgrade(database: AsyncDatabase[Document], name: str, options: Document, schema: Document) -> str | None:
    """Replace an older schema; what is missing where this user or the server can't."""
    now = _schema_of(options.get("validator") or {})
    same = {key: value for key, value in schema.items() if key != "title"}
    if now in (schema, same) or _version(now.get("title")) > _version(schema["title"]):
        return None  # collMod would stop all traffic for a moment
    try:
        await database.command("collMod", name, validator={"$jsonSchema": schema})
    except OperationFailure as error:
        _raise_if_passing(error)
        return f"its schema isn't {schema['title']}, since that can't be set: {brief(error)}"
    return None


async def _build(collection: AsyncCollection[Document], indexes: Sequence[IndexModel]) -> str | None:
    """Build what is missing; why that can't be done, without documents' values."""
    try:
        await collection.create_indexes(list(indexes))
    except OperationFailure as error:
        _raise_if_passing(error)
        names = ", ".join(index.document["name"] for index in indexes)
        if error.code == DUPLICATE_KEY:
            fields = ", ".join((error.details or {}).get("keyPattern", {})) or "unique value"
            return f"the unique index can't be built ({names}): several documents have the same {fields}"
        if error.code in INDEX_CONFLICTS:
            return f"an index can't be built ({names}): one of that name or key is there with other options"
        return f"an index can't be built ({names}): {brief(error)}"
    return None


def _raise_if_passing(error: OperationFailure) -> None:
    """What is over the next time is no reason to do without."""
    if isinstance(error, ExecutionTimeout | WriteConcernError):
        raise error


def _schema_of(validator: Document) -> Document:
    schema: Document = validator.get("$jsonSchema", {})
    return schema


def _name(title: object) -> str | None:
    match = _TITLE.fullmatch(title) if isinstance(title, str) else None
    return match[1] if match else None


def _version(title: object) -> int:
    match = _TITLE.fullmatch(title) if isinstance(title, str) else None
    return int(match[2]) if match else 0
