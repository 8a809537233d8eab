"""A query whose answer fits into one reply, as a driver asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.collation import Collation

from sluice.drivers.connected import Collection

LARGEST_BATCH = 2**31 - 1
"""Documents; without a number a first reply has 101."""


@dataclass(frozen=True, slots=True)
class Query:
    """What `find` takes; read preference, read concern and codec options are the collection's."""

    filter: Mapping[str, Any]
    projection: Mapping[str, Any] | None = None
    sort: Sequence[tuple[str, int | str | Mapping[str, Any]]] | None = None
    skip: int = 0
    limit: int = 0
    collation: Collation | None = None
    comment: Any = None


async def find(collection: Collection, query: Query) -> list[Any]:
    """The documents, decoded as the collection's are. Raises what the driver's `find` raises."""
    client = collection.database.client
    lean = getattr(type(client), "find_lean", None)  # of its class: a client has a database of any name
    if lean is None:
        return await by_the_driver(collection, query)
    found: list[Any] = await lean(client, collection, query)
    return found


async def by_the_driver(collection: Collection, query: Query) -> list[Any]:
    """The same by the driver's own `find`."""
    more: dict[str, Any] = {
        "sort": query.sort,
        "skip": query.skip,
        "collation": query.collation,
        "comment": query.comment,
    }
    if query.limit == 1 and isinstance(query.filter, Mapping):  # one thread's work for Motor; a cursor takes several
        one = await collection.find_one(query.filter, query.projection, **more)
        return [] if one is None else [one]
    cursor = collection.find(
        query.filter, query.projection, limit=query.limit, batch_size=query.limit or LARGEST_BATCH, **more
    )
    return await cursor.to_list(None)
