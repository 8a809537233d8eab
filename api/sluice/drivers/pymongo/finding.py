"""A query and its one reply, without what the driver does around a command: a cursor, a session, a retry object.

Two thirds of a read's cost. The member is chosen and the connection taken as the driver does it, through its own checkout,
so that monitoring and pools learn of every failure; and whatever fails is left to the driver's own operation, which
repeats it, raises, and marks members as ever.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, cast

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import helpers_shared
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError
from pymongo.logger import _COMMAND_LOGGER, _is_debug_enabled
from pymongo.message import _op_msg

from sluice.drivers import overload
from sluice.drivers.finding import LARGEST_BATCH, Query, by_the_driver
from sluice.errors import PoolError

if TYPE_CHECKING:
    from pymongo.asynchronous.pool import AsyncConnection
    from pymongo.message import _OpMsg

    from sluice.drivers.connected import Collection
    from sluice.drivers.pymongo.client import AsyncClient
    from sluice.drivers.pymongo.pool import AsyncPool

OPERATION = "find"
_RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
_LENGTH = struct.Struct("<i").unpack_from
_NUMBER = struct.Struct("<q").unpack_from
_BEGIN = b"\x03cursor\x00"
_BATCH = b"\x04firstBatch\x00"
_ID = b"\x12id\x00"
_OK = b"\x01ok\x00" + struct.pack("<d", 1.0)
_CLUSTER_TIME = b"\x03$clusterTime\x00"
_DOCUMENT = 3


async def find(client: AsyncClient, collection: Collection, query: Query) -> list[bytes]:
    """The documents, encoded. Raises what the driver's `find` raises."""
    if _is_plain(client, query):
        client.budget.earn()
        try:
            found = await _ask(client, collection, query)
        except (PoolError, ExecutionTimeout):  # neither of which the driver repeats
            raise
        except OperationFailure as error:
            if overload.refused(error):
                policy = client._retry_policy
                pause = policy.backoff(1, getattr(error, "_base_backoff_ms", None))
                if not overload.policy(cast("Any", policy), OPERATION, client.budget).should_retry(1, pause):
                    raise
                await asyncio.sleep(pause)
        except PyMongoError:
            pass  # the driver meets it, too, and knows what to do
        else:
            if found is not None:
                return found
    return await by_the_driver(collection, query)


def _is_plain(client: AsyncClient, query: Query) -> bool:
    """Whether a query means the same without the driver's machinery, and nobody listens to that."""
    options = client.options
    return (
        options.retry_reads
        and options.timeout is None
        and not options.load_balanced
        and client._encrypter is None
        and not client._event_listeners.enabled_for_commands
        and client._get_bound_session() is None
        and "$query" not in query.filter
        and not _is_debug_enabled(_COMMAND_LOGGER)
    )


async def _ask(client: AsyncClient, collection: Collection, query: Query) -> list[bytes] | None:
    """None where it's the driver's after all: the answer takes more than one reply, or replies are compressed."""
    preference = collection.read_preference
    server = await client._select_server(preference, None, OPERATION)
    async with client._conn_from_server(preference, server, None) as (connection, effective):
        if connection.compression_context is not None:
            return None
        command = _command(collection, query)
        connection.apply_timeout(command)
        connection.add_server_api(command)
        connection.send_cluster_time(command, None, client)
        request, message, _, _ = _op_msg(
            0, command, collection.database.name, effective, collection.codec_options, None
        )
        await connection.send_message(message, 0)
        reply = await connection.receive_message(request)
        payload = bytes(reply.raw_command_response())
        split = _split(payload)
        if split is None:
            return await _unusual(client, collection, connection, reply, server.pool)
        documents, cluster_time = split
        if cluster_time and cluster_time != client.cluster_time:
            client.cluster_time = cluster_time
            await client._process_response({"$clusterTime": RawBSONDocument(cluster_time)}, None)
        return documents


def _command(collection: Collection, query: Query) -> dict[str, Any]:
    command: dict[str, Any] = {"find": collection.name, "filter": query.filter}
    if query.projection is not None:
        command["projection"] = query.projection or {"_id": 1}  # as the driver takes an empty one
    if query.sort:
        command["sort"] = dict(query.sort)
    if query.skip:
        command["skip"] = query.skip
    if query.limit:
        command["limit"] = query.limit
    # One more than there will be: a member then knows that no more is asked for.
    command["batchSize"] = query.limit + 1 if query.limit else LARGEST_BATCH
    if query.collation is not None:
        command["collation"] = query.collation.document
    if query.comment is not None:
        command["comment"] = query.comment
    if collection.read_concern.level:
        command["readConcern"] = collection.read_concern.document
    return command


def _split(payload: bytes) -> tuple[list[bytes], bytes] | None:
    """The documents of a reply, and its `$clusterTime`, empty without one; None for any but a complete, good answer."""
    if payload[4:12] != _BEGIN or payload[16:28] != _BATCH:
        return None
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
        position = start + _LENGTH(payload, start)[0]
        documents.append(payload[start:position])
    time = after_cursor + 12
    if payload[time : time + 14] != _CLUSTER_TIME:
        return documents, b""
    time += 14
    return documents, payload[time : time + _LENGTH(payload, time)[0]]


async def _unusual(
    client: AsyncClient, collection: Collection, connection: AsyncConnection, reply: _OpMsg, pool: Any
) -> list[bytes] | None:
    """Any other reply, as the driver takes it. Raises what the driver raises for an error."""
    response = reply.unpack_response(codec_options=_RAW, user_fields={"cursor": {"firstBatch": 1}})[0]
    await client._process_response(response, None)
    try:
        helpers_shared._check_command_response(response, connection.max_wire_version)
    except OperationFailure as error:
        if overload.refused(error):
            cast("AsyncPool", pool).overloaded()
        raise
    cursor = response["cursor"]
    if cursor["id"]:
        await connection.command(
            collection.database.name, {"killCursors": collection.name, "cursors": [cursor["id"]]}, client=client
        )
        return None
    return [bytes(document.raw) for document in cursor["firstBatch"]]
