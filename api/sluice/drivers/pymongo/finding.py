"""A query and its one reply, without what the driver does around a command: a cursor, a session, a retry object.

Two thirds of a read's cost. The member is chosen and the connection taken as the driver does it, through its own
checkout, so that monitoring and pools learn of every failure. What fails is the first attempt of the driver's own
operation, which goes on from there: it repeats it, or raises, as ever.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import helpers_shared
from pymongo.collation import validate_collation_or_none
from pymongo.errors import PyMongoError
from pymongo.logger import _COMMAND_LOGGER, _is_debug_enabled
from pymongo.message import _op_msg

from sluice.drivers.finding import LARGEST_BATCH, Query, by_the_driver

if TYPE_CHECKING:
    from pymongo.asynchronous.pool import AsyncConnection
    from pymongo.asynchronous.server import Server
    from pymongo.message import _OpMsg

    from sluice.drivers.connected import Collection
    from sluice.drivers.pymongo.client import AsyncClient

REAUTHENTICATE = 391
"""The server's code for it; the driver does so where it asks itself."""
_TURNS = {"$query", "$explain"}
"""Keys of a filter that make the driver ask something else."""
_RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
_FIELDS = {"cursor": {"firstBatch": 1}}
_LENGTH = struct.Struct("<i").unpack_from
_NUMBER = struct.Struct("<q").unpack_from
_BEGIN = b"\x03cursor\x00"
_BATCH = b"\x04firstBatch\x00"
_ID = b"\x12id\x00"
_OK = b"\x01ok\x00" + struct.pack("<d", 1.0)
_CLUSTER_TIME = b"\x03$clusterTime\x00"
_DOCUMENT = 3
_SMALLEST = 5


@dataclass(slots=True)
class FirstAttempt:
    """What the driver's operation goes on from; without an error it begins anew."""

    server: Server | None = None
    error: PyMongoError | None = None


_first_attempt: ContextVar[FirstAttempt | None] = ContextVar("sluice_first_attempt", default=None)


def take_first_attempt() -> FirstAttempt | None:
    """The one of the operation that the driver now begins; None where this is its first."""
    first = _first_attempt.get()
    if first is not None:
        _first_attempt.set(None)
    return first


async def find(client: AsyncClient, collection: Collection, query: Query) -> list[Any]:
    """See `sluice.drivers.finding.find`."""
    if not _is_plain(client, query):
        return await by_the_driver(collection, query)
    command = _command(collection, query)
    client.budget.earn()
    first = FirstAttempt()
    try:
        encoded = await _ask(client, collection, command, first)
    except PyMongoError as error:
        if getattr(error, "code", None) != REAUTHENTICATE:
            first.error = error
    else:
        if encoded is not None:
            codec = collection.codec_options
            return [bson.decode(document, codec) for document in encoded]
    token = _first_attempt.set(first)
    try:
        return await by_the_driver(collection, query)
    finally:
        _first_attempt.reset(token)


def _is_plain(client: AsyncClient, query: Query) -> bool:
    """Whether a query means the same without the driver's machinery, and nobody listens to that."""
    options = client.options
    compression = options.pool_options._compression_settings
    return (
        options.timeout is None
        and not options.load_balanced
        and not (compression and compression.compressors)
        and client._encrypter is None
        and not (client._event_listeners and client._event_listeners.enabled_for_commands)
        and client._get_bound_session() is None
        and isinstance(query.filter, Mapping)
        and _TURNS.isdisjoint(query.filter)
        and (query.projection is None or isinstance(query.projection, Mapping))
        and not _is_debug_enabled(_COMMAND_LOGGER)
    )


def _command(collection: Collection, query: Query) -> dict[str, Any]:
    command: dict[str, Any] = {"find": collection.name, "filter": query.filter}
    if query.projection:
        command["projection"] = query.projection
    if query.sort:
        command["sort"] = helpers_shared._index_document(query.sort)
    if query.skip:
        command["skip"] = query.skip
    if query.limit:
        command["limit"] = query.limit
    # One more than there will be: a member then knows that no more is asked for.
    command["batchSize"] = query.limit + 1 if query.limit else LARGEST_BATCH
    if query.collation is not None:
        command["collation"] = validate_collation_or_none(query.collation)
    if query.comment:
        command["comment"] = query.comment
    if collection.read_concern.level:
        command["readConcern"] = collection.read_concern.document
    return command


async def _ask(
    client: AsyncClient, collection: Collection, command: dict[str, Any], first: FirstAttempt
) -> list[bytes] | None:
    """The documents, encoded; None where the answer takes more than one reply. Raises what the server answers."""
    preference = collection.read_preference
    first.server = server = await client._select_server(preference, None, "find")
    async with client._conn_from_server(preference, server, None) as (connection, effective):
        connection.add_server_api(command)
        connection.send_cluster_time(command, None, client)
        connection.apply_timeout(command)
        request, message, size, _ = _op_msg(
            0, command, collection.database.name, effective, collection.codec_options, None
        )
        await connection.send_message(message, size)
        reply = await connection.receive_message(request)
        split = _split(bytes(reply.raw_command_response()))
        if split is None:
            return await _unusual(client, collection, connection, reply)
        documents, cluster_time = split
        if cluster_time and cluster_time != client.cluster_time:
            client.cluster_time = cluster_time
            await client._process_response({"$clusterTime": RawBSONDocument(cluster_time)}, None)
        return documents


def _split(payload: bytes) -> tuple[list[bytes], bytes] | None:
    """The documents of a reply, and its `$clusterTime`, empty without one; None for any but a complete, good answer."""
    if payload[4:12] != _BEGIN or payload[16:28] != _BATCH:
        return None
    try:
        after_cursor = 12 + _LENGTH(payload, 12)[0]
        after_batch = 28 + _LENGTH(payload, 28)[0]
        if (
            payload[after_batch : after_batch + 4] != _ID
            or _NUMBER(payload, after_batch + 4)[0]
            or payload[after_cursor : after_cursor + 12] != _OK
        ):
            return None
        documents = []
        position = 32
        while payload[position] == _DOCUMENT:
            start = payload.index(0, position + 1) + 1
            length = _LENGTH(payload, start)[0]
            if length < _SMALLEST:
                return None
            position = start + length
            documents.append(payload[start:position])
        time = after_cursor + 12
        if payload[time : time + 14] != _CLUSTER_TIME:
            return documents, b""
        time += 14
        return documents, payload[time : time + _LENGTH(payload, time)[0]]
    except (IndexError, ValueError, struct.error):  # no BSON: the driver has an error for that
        return None


async def _unusual(
    client: AsyncClient, collection: Collection, connection: AsyncConnection, reply: _OpMsg
) -> list[bytes] | None:
    """Any other reply, as the driver takes it. Raises what the driver raises for an error."""
    response = reply.unpack_response(codec_options=_RAW, user_fields=_FIELDS)[0]
    if not response.get("ok"):  # an error has its details as the collection's documents are
        response = reply.unpack_response(codec_options=collection.codec_options, user_fields=_FIELDS)[0]
    await client._process_response(response, None)
    helpers_shared._check_command_response(response, connection.max_wire_version, pool_opts=connection.opts)
    cursor = response["cursor"]
    if cursor["id"]:
        kill = {"killCursors": collection.name, "cursors": [cursor["id"]]}
        await connection.command(collection.database.name, kill, client=client)
        return None
    return [bytes(document.raw) for document in cursor["firstBatch"]]
