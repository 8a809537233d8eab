"""What Sluice relies on inside the pinned drivers: when one fails after an upgrade, read the modules that it names."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import bson
import motor.core
import motor.frameworks.asyncio
import motor.motor_asyncio
import pymongo
import pytest
from motor.metaprogramming import create_class_with_framework
from pymongo import AsyncMongoClient, MongoClient, _csot, helpers_shared, message, network_layer, pool_shared
from pymongo.asynchronous import command_runner
from pymongo.asynchronous import mongo_client as asynchronous_client
from pymongo.asynchronous import pool as asynchronous
from pymongo.asynchronous import topology as asynchronous_topology
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.mongo_client import _ClientCheckout, _ClientConnectionRetryable, _ClientReadCheckout
from pymongo.asynchronous.topology import Topology
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.collation import Collation
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor, RawBatchCursor
from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure, PyMongoError, _OperationCancelled
from pymongo.helpers_shared import _RetryPolicy
from pymongo.logger import _COMMAND_LOGGER, _is_debug_enabled
from pymongo.pool_shared import PoolState, _PoolClosedError
from pymongo.read_concern import ReadConcern
from pymongo.synchronous import mongo_client as synchronous_client
from pymongo.synchronous import pool as synchronous
from pymongo.synchronous import topology as synchronous_topology
from pymongo.synchronous.mongo_client import _ClientConnectionRetryable as SyncRetryable

from sluice.drivers import overload
from sluice.drivers.finding import LARGEST_BATCH, Query
from sluice.drivers.motor.client import SyncClient
from sluice.drivers.motor.endings import ENDINGS as MOTOR_ENDINGS
from sluice.drivers.motor.pool import CountedConnection as MotorConnection
from sluice.drivers.pools import adopt
from sluice.drivers.pymongo import finding
from sluice.drivers.pymongo.client import AsyncClient
from sluice.drivers.pymongo.connection import CountedConnection as PyMongoConnection
from sluice.drivers.pymongo.endings import ENDINGS
from sluice.drivers.tracker import Tracker
from sluice.statistics.snapshot import PoolStats
from tests.sluice import private_names


def test_the_versions_are_the_ones_that_were_read() -> None:
    assert (version("pymongo"), version("motor")) == ("4.20.0", "3.7.1")


@pytest.mark.parametrize("client", [AsyncMongoClient, MongoClient])
def test_clients_take_a_pool_class(client: Any) -> None:
    made: list[tuple[Any, ...]] = []

    def make(*arguments: Any, **_: Any) -> None:
        made.append(arguments)

    settings = client("mongodb://127.0.0.1:1", connect=False, _pool_class=make)._topology_settings
    assert settings.pool_class is make


SELECTING = ["self", "server_selector", "session", "operation", "address", "deprioritized_servers", "operation_id"]
REPEATING = [
    "self", "func", "session", "bulk", "operation", "is_read", "address", "read_pref", "retryable", "operation_id",
    "is_run_command", "is_aggregate_write",
]  # fmt: skip
CONNECTING = ["self", "host", "port", "document_class", "tz_aware", "connect", "type_registry", "kwargs"]
OVERRIDDEN: dict[tuple[type, str], list[str]] = {
    (asynchronous.Pool, "__init__"): ["self", "address", "options", "is_sdam", "client_id"],
    (asynchronous.Pool, "_get_conn"): ["self", "checkout_started_time", "handler"],
    (asynchronous.Pool, "connect"): ["self", "handler"],
    (asynchronous.Pool, "_perished"): ["self", "conn"],
    (asynchronous.Pool, "checkin"): ["self", "conn"],
    (asynchronous.Pool, "remove_stale_sockets"): ["self", "reference_generation"],
    (asynchronous.Pool, "_reset"): ["self", "close", "pause", "service_id", "interrupt_connections"],
    (asynchronous.AsyncConnection, "close_conn"): ["self", "reason"],
    (asynchronous.AsyncConnection, "send_message"): ["self", "message", "max_doc_size"],
    (asynchronous.AsyncConnection, "receive_message"): ["self", "request_id"],
    (synchronous.Pool, "__init__"): ["self", "address", "options", "is_sdam", "client_id"],
    (synchronous.Pool, "_get_conn"): ["self", "checkout_started_time", "handler"],
    (synchronous.Pool, "connect"): ["self", "handler"],
    (synchronous.Pool, "_perished"): ["self", "conn"],
    (synchronous.Pool, "checkin"): ["self", "conn"],
    (synchronous.Pool, "remove_stale_sockets"): ["self", "reference_generation"],
    (synchronous.Connection, "close_conn"): ["self", "reason"],
    (pool_shared._AgnosticBaseConnection, "apply_timeout"): ["self", "cmd"],
    (AsyncMongoClient, "_select_server"): SELECTING,
    (MongoClient, "_select_server"): SELECTING,
    (AsyncMongoClient, "__init__"): CONNECTING,
    (MongoClient, "__init__"): CONNECTING,
    (AsyncMongoClient, "_retry_internal"): REPEATING,
    (MongoClient, "_retry_internal"): REPEATING,
    (AsyncMongoClient, "_kill_cursors"): ["self", "cursor_ids", "address", "topology", "session"],
    (AsyncMongoClient, "_end_sessions"): ["self", "session_ids"],
    (_ClientConnectionRetryable, "_read"): ["self"],
    (_ClientConnectionRetryable, "_write"): ["self"],
    (SyncRetryable, "_read"): ["self"],
    (SyncRetryable, "_write"): ["self"],
    (motor.core.AgnosticClient, "wrap"): ["self", "obj"],
    (motor.core.AgnosticClientSession, "__aexit__"): ["self", "exc_type", "exc_val", "exc_tb"],
    (motor.core.AgnosticClientSession, "with_transaction"): [
        "self",
        "coro",
        "read_concern",
        "write_concern",
        "read_preference",
        "max_commit_time_ms",
    ],
    (PyMongoError, "__init__"): ["self", "message", "error_labels"],
}


def test_every_method_that_is_overridden_is_in_the_table() -> None:
    found = private_names.overridden()
    assert found.keys() == OVERRIDDEN.keys(), {
        "overridden, but not in OVERRIDDEN": {key: found[key] for key in found.keys() - OVERRIDDEN.keys()},
        "in OVERRIDDEN, but not overridden any more": OVERRIDDEN.keys() - found.keys(),
    }


@pytest.mark.parametrize(("owner", "method"), OVERRIDDEN, ids=lambda part: part if isinstance(part, str) else None)
def test_overridden_methods_still_have_these_parameters(owner: type, method: str) -> None:
    assert list(inspect.signature(getattr(owner, method)).parameters) == OVERRIDDEN[owner, method]


class Private(NamedTuple):
    """A private name of the drivers' that Sluice touches."""

    places: tuple[str, ...]
    """The modules whose source has it."""
    relied_on: str
    contract: str
    """The test that says more."""


BOTH_CLIENTS = ("pymongo.asynchronous.mongo_client", "pymongo.synchronous.mongo_client")
BOTH_POOLS = ("pymongo.asynchronous.pool", "pymongo.synchronous.pool")
PARAMETERS = "test_overridden_methods_still_have_these_parameters"
STATE = "test_a_pool_still_has_the_state_that_gauges_read"
SENDING = "test_a_connection_sends_and_receives_as_the_drivers_does"
ASKING = "test_a_query_is_asked_as_the_driver_asks_it"
PLAIN = "test_a_client_says_who_needs_more_than_a_plain_query"
PRIVATE = {
    "_AgnosticBaseConnection": Private(
        ("pymongo.pool_shared", *BOTH_POOLS),
        "both drivers' connections derive from it, and limit each command's time by its apply_timeout",
        "test_pools_and_connections_have_a_base_in_common",
    ),
    "_AgnosticBasePool": Private(
        ("pymongo.pool_shared", *BOTH_POOLS),
        "both drivers' pools derive from it, and have its state",
        "test_pools_and_connections_have_a_base_in_common",
    ),
    "_COMMAND_LOGGER": Private(
        ("pymongo.logger", "pymongo.asynchronous.command_runner"), "logs every command, where it does at all", PLAIN
    ),
    "_ClientCheckout": Private(
        BOTH_CLIENTS,
        "what a checkout is made for: its session tells what belongs to a transaction",
        "test_whoever_ends_a_transaction_names_it",
    ),
    "_ClientConnectionRetryable": Private(
        BOTH_CLIENTS, "an operation and its retries", "test_operations_are_repeated_where_refusals_end_it"
    ),
    "_OpMsg": Private(("pymongo.message",), "an answer", ASKING),
    "_OperationCancelled": Private(
        ("pymongo.errors", "pymongo.network_layer"),
        "what the driver's filler, and whoever waits for an answer, meets when its pool is cleared",
        "test_the_names_that_the_table_of_errors_reads_are_still_there",
    ),
    "_PoolClosedError": Private(
        ("pymongo.pool_shared", *BOTH_POOLS),
        "what an operation meets when its client closes",
        "test_the_names_that_the_table_of_errors_reads_are_still_there",
    ),
    "_UNPACK_REPLY": Private(
        ("pymongo.message", "pymongo.network_layer"), "takes an answer apart, by its opcode", SENDING
    ),
    "_add_error_label": Private(
        ("pymongo.errors",),
        "how an error says that nothing was written, or that a transaction may be repeated",
        "test_the_names_that_the_table_of_errors_reads_are_still_there",
    ),
    "_check_command_response": Private(
        ("pymongo.helpers_shared", "pymongo.asynchronous.command_runner"), "makes an error of an answer", ASKING
    ),
    "_check_interval_seconds": Private(
        ("pymongo.pool_shared", *BOTH_POOLS[:1]),
        "for how long a connection that was returned is taken for open",
        "test_an_idle_connection_is_taken_in_these_steps",
    ),
    "_compression_settings": Private(("pymongo.pool_options",), "which compressors a client was given", PLAIN),
    "_conn_from_server": Private(
        BOTH_CLIENTS[:1], "gives a connection, and tells the member's monitor of what fails on it", ASKING
    ),
    "_connect": Private(
        ("motor.core",),
        "how Motor's client resolves a mongodb+srv name before its first operation",
        "test_motors_client_connects_when_it_is_told_to",
    ),
    "_csot": Private(
        ("pymongo", "pymongo.pool_shared", *BOTH_CLIENTS),
        "the driver's own timeout, which waits at the turnstile draw on",
        "test_the_drivers_timeout_is_in_context_variables",
    ),
    "_encrypter": Private(BOTH_CLIENTS[:1], "encrypts and decrypts fields, where it does at all", PLAIN),
    "_end_sessions": Private(BOTH_CLIENTS[:1], "ends sessions on the server, through a full queue", PARAMETERS),
    "_event_listeners": Private(
        ("pymongo.mongo_client_shared", *BOTH_CLIENTS[:1]), "whoever is told of every command, if anybody is", PLAIN
    ),
    "_framework": Private(
        ("motor.core", "motor.metaprogramming"),
        "Motor's way into the threads",
        "test_motor_asks_its_framework_for_a_way_into_the_threads",
    ),
    "_get_bound_session": Private(BOTH_CLIENTS[:1], "the session that this context is bound to", PLAIN),
    "_get_conn": Private(BOTH_POOLS, "every checkout passes through it", "test_every_checkout_and_return_is_counted"),
    "_index_document": Private(("pymongo.helpers_shared",), "takes a sort's names and directions", ASKING),
    "_is_debug_enabled": Private(
        ("pymongo.logger", "pymongo.asynchronous.command_runner"), "whether commands are logged", PLAIN
    ),
    "_kill_cursors": Private(BOTH_CLIENTS[:1], "ends cursors on the server, through a full queue", PARAMETERS),
    "_max_connecting": Private(("pymongo.pool_shared",), "how many connections may be opened at a time", STATE),
    "_op_msg": Private(("pymongo.message",), "encodes a command", ASKING),
    "_pending": Private(("pymongo.pool_shared", *BOTH_POOLS), "how many connections are being opened", STATE),
    "_perished": Private(
        BOTH_POOLS, "closes what was idle for too long", "test_idle_connections_are_closed_in_two_places"
    ),
    "_pool_class": Private(BOTH_CLIENTS, "how a client gets its pools", "test_clients_take_a_pool_class"),
    "_process_response": Private(BOTH_CLIENTS[:1], "learns the cluster's time from an answer", ASKING),
    "_raise_connection_failure": Private(
        BOTH_POOLS[:1], "closes a connection on which something failed, and raises what it's called", SENDING
    ),
    "_read": Private(BOTH_CLIENTS, "a read and its retries", "test_operations_are_repeated_where_refusals_end_it"),
    "_reset": Private(BOTH_POOLS[:1], "clears or closes a pool", "test_a_pool_is_cleared_and_closed_in_one_place"),
    "_retry_internal": Private(
        BOTH_CLIENTS, "runs every operation", "test_operations_are_repeated_where_refusals_end_it"
    ),
    "_retry_policy": Private(
        BOTH_CLIENTS, "what is asked before an overloaded member is asked again", "test_a_policy_decides_on_repetitions"
    ),
    "_retryable": Private(
        BOTH_CLIENTS[:1], "whether to repeat an operation", "test_operations_are_repeated_where_refusals_end_it"
    ),
    "_server": Private(
        BOTH_CLIENTS, "the member that an operation was sent to", "test_a_policy_decides_on_repetitions"
    ),
    "_select_server": Private(BOTH_CLIENTS, "chooses a member, and waits for one", PARAMETERS),
    "_telemetry": Private(("pymongo.pool_shared",), "tells listeners and the log of a checkout that failed", STATE),
    "_write": Private(BOTH_CLIENTS, "a write and its retries", "test_operations_are_repeated_where_refusals_end_it"),
}


def test_every_private_name_that_is_touched_is_in_the_table() -> None:
    found = private_names.touched()
    assert found.keys() == PRIVATE.keys(), {
        "touched, but without a contract": {name: found[name] for name in found.keys() - PRIVATE.keys()},
        "in PRIVATE, but not touched any more": PRIVATE.keys() - found.keys(),
    }


def test_the_page_of_the_architecture_has_them_all() -> None:
    page = (Path(__file__).parents[3] / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (`sluice\..*`) \| (\w+) \|$", page, re.MULTILINE)
    found = {name: (set(re.findall(r"[\w.]+", modules)), contract) for name, modules, contract in rows}
    assert found == {name: (modules, PRIVATE[name].contract) for name, modules in private_names.touched().items()}


@pytest.mark.parametrize("name", PRIVATE)
def test_each_private_name_is_where_it_was(name: str) -> None:
    entry = PRIVATE[name]
    assert callable(globals()[entry.contract])
    for place in entry.places:
        found = re.search(rf"\b{name}\b", inspect.getsource(import_module(place)))
        assert found, f"{place} no longer has {name}, {entry.relied_on}; used in {private_names.touched()[name]}"


@pytest.mark.parametrize(("pool", "connection"), [
    (asynchronous.Pool, asynchronous.AsyncConnection), (synchronous.Pool, synchronous.Connection),
])  # fmt: skip
def test_pools_and_connections_have_a_base_in_common(pool: Any, connection: Any) -> None:
    """`TrackedPool` and `TrackedConnection` stand between it and the driver's own, and `adopt` changes a class."""
    assert pool.__mro__[1] is pool_shared._AgnosticBasePool
    assert connection.__mro__[1] is pool_shared._AgnosticBaseConnection
    assert "apply_timeout" not in vars(connection)
    kind = PyMongoConnection if pool is asynchronous.Pool else MotorConnection
    tracker = Tracker(PoolStats())
    adopted = adopt(object.__new__(connection), kind, tracker)
    assert type(adopted) is kind
    assert adopted.tracker is tracker


@pytest.mark.parametrize("pool", [asynchronous, synchronous])
def test_every_checkout_and_return_is_counted(pool: Any) -> None:
    """Whoever takes a connection calls `_get_conn`, and whoever gives it back `checkin`."""
    checkout = inspect.getsource(pool._PoolCheckout)
    assert "._get_conn(" in checkout
    assert ".checkin(" in checkout
    assert inspect.getsource(pool).count("self.conns.popleft()") == 1  # in _get_conn
    assert "self.conns.popleft()" in inspect.getsource(pool.Pool._get_conn)


def test_a_connection_sends_and_receives_as_the_drivers_does() -> None:
    """`pymongo.connection` has the same without the driver's tasks."""
    everything = inspect.getsource(asynchronous)
    connection = asynchronous.AsyncConnection
    for method, way in (
        (connection.send_message, "async_sendall("),
        (connection.receive_message, "async_receive_message("),
    ):
        source = inspect.getsource(method)
        assert way in source, f"{method.__name__} has another way to the network"
        assert everything.count(f"await {way}") == 1, f"{way} has another caller, which makes tasks"
        assert "except BaseException as error:" in source
        assert "await self._raise_connection_failure(error)" in source
    assert "max_doc_size > self.max_bson_size" in inspect.getsource(connection.send_message)
    failure = inspect.getsource(connection._raise_connection_failure)
    assert "await self.close_conn(reason)" in failure
    assert "isinstance(error, (IOError, OSError, *SSLErrors))" in failure
    writing = inspect.getsource(network_layer.PyMongoProtocol.write)
    assert "self.transport.write(message)" in writing
    assert "await" not in writing, "to write may wait now, and needs a limit"
    reading = inspect.signature(network_layer.PyMongoProtocol.read).parameters
    assert list(reading) == ["self", "request_id", "max_message_size"]


def test_a_wait_for_an_answer_ends_as_the_drivers_does() -> None:
    """By the same clocks, with the same errors, and by the same sign that its connection is to be given up."""
    receiving = inspect.getsource(network_layer.async_receive_message)
    for step in (
        "timeout = conn.conn.gettimeout",
        "if _csot.get_timeout():",
        "deadline = _csot.get_deadline()",
        "conn.conn.get_conn.read(request_id, max_message_size)",
        'raise TimeoutError("timed out")',
        "unpack_reply = _UNPACK_REPLY[op_code]",
        "raise ProtocolError(",
        "return unpack_reply(data)",
        'raise _OperationCancelled("operation cancelled")',
    ):
        assert step in receiving, f"the driver waits for an answer without {step!r}"
    assert "conn.cancel_context.cancelled" in inspect.getsource(network_layer._poll_cancellation)
    clearing = inspect.getsource(asynchronous.Pool._reset)
    assert "for context in self.active_contexts:" in clearing
    assert "context.cancel()" in clearing
    assert {2013: message._OpMsg.unpack} == message._UNPACK_REPLY


def test_an_idle_connection_is_taken_in_these_steps() -> None:
    """`AsyncPool._idle` does them all in one, where none of them would wait."""
    taking = inspect.getsource(asynchronous.Pool._get_conn)
    counted = re.findall(r"self\.(\w+) \+= 1", taking)
    assert counted == ["operation_count", "requests", "active_sockets", "_pending"], "_idle counts the first three"
    steps = (
        "if self.pid != os.getpid():",
        "while not (self.requests < self.max_pool_size):",
        "conn = self.conns.popleft()",
        "if await self._perished(conn):",
        "conn.active = True",
        "self.active_contexts.add(conn.cancel_context)",
        "return conn",
    )
    places = [taking.find(step) for step in steps]
    assert -1 not in places, dict(zip(steps, places, strict=True))
    assert places == sorted(places)
    perished = inspect.getsource(asynchronous.Pool._perished)
    assert perished.count("return True") == 3, "_idle knows three reasons not to take a connection"
    assert "idle_time_seconds > self.opts.max_idle_time_seconds" in perished
    assert "check_interval_seconds == 0 or idle_time_seconds > check_interval_seconds" in perished
    assert "self.stale_generation(conn.generation, conn.service_id)" in perished
    options = AsyncMongoClient("mongodb://127.0.0.1:1", connect=False)._topology_settings.pool_options
    pool = asynchronous.Pool(("127.0.0.1", 1), options)
    assert pool._check_interval_seconds == 1
    assert (pool.requests, pool.pid, pool.active_contexts, pool.lock.locked()) == (0, os.getpid(), set(), False)
    returning = inspect.getsource(asynchronous.Pool._checkin_apply)
    assert re.findall(r"self\.(\w+) -= 1", returning)[2:] == ["requests", "active_sockets", "operation_count"]
    assert "self.active_contexts.discard(conn.cancel_context)" in returning


def test_a_query_is_asked_as_the_driver_asks_it() -> None:
    """`pymongo.finding` sends the same command, on a connection from the same checkout, and reads the answer alike."""
    running, asking = inspect.getsource(command_runner._run_command), inspect.getsource(message._Query.as_command)
    for step in (
        "await conn.send_message(msg, max_doc_size)",
        "await conn.receive_message(request_id)",
        "await client._process_response(response_doc, session)",
        "helpers_shared._check_command_response(",
    ):
        assert step in running, f"the driver runs a command without {step!r}"
    for step in ("conn.add_server_api(cmd)", "conn.send_cluster_time(cmd, ", "conn.apply_timeout(cmd=cmd)"):
        assert step in asking, f"the driver makes a query without {step!r}"
    for method, parameters in (
        (AsyncMongoClient._conn_from_server, ["self", "read_preference", "server", "session"]),
        (AsyncMongoClient._process_response, ["self", "reply", "session"]),
        (message._op_msg, ["flags", "command", "dbname", "read_preference", "opts", "ctx"]),
        (message._OpMsg.unpack_response, ["self", "cursor_id", "codec_options", "user_fields", "legacy_response"]),
    ):
        assert list(inspect.signature(method).parameters) == parameters
    assert "return conn, read_pref" in inspect.getsource(_ClientReadCheckout.__aenter__)
    assert 'reply.get("$clusterTime")' in inspect.getsource(AsyncMongoClient._process_response)
    codec = AsyncMongoClient(connect=False).codec_options
    _, encoded, size, _ = message._op_msg(0, {"find": "a"}, "b", None, codec)
    assert (len(encoded) > size, encoded[16:20]) == (True, bytes(4))
    answer = message._OpMsg.unpack(bytes(5) + bson.encode({"ok": 1}))
    assert bytes(answer.raw_command_response()) == bson.encode({"ok": 1})
    assert answer.unpack_response(codec_options=codec, user_fields={"cursor": {"firstBatch": 1}}) == [{"ok": 1}]
    for code, error in ((10107, NotPrimaryError), (50, OperationFailure), (2, OperationFailure)):
        with pytest.raises(error):
            helpers_shared._check_command_response({"ok": 0, "errmsg": "no", "code": code}, 20, pool_opts=None)
    assert helpers_shared._REAUTHENTICATION_REQUIRED_CODE == finding.REAUTHENTICATE


def test_a_query_has_the_fields_that_the_drivers_has() -> None:
    collection = AsyncMongoClient[dict[str, Any]](connect=False).db.things
    of = collection.with_options(read_concern=ReadConcern("majority"))
    collation = Collation("en")
    sort: list[tuple[str, int | str | Mapping[str, Any]]] = [("a", 1), ("b", "text")]
    query = Query({"x": 1}, {"a": 1}, sort, 5, 7, collation, "why")
    cursor = of.find({"x": 1}, {"a": 1}, 5, 7, sort=sort, collation=collation, comment="why")
    theirs = message._gen_find_command(
        of.name, cursor._query_spec(), {"a": 1}, 5, 7, 7, 0, of.read_concern, collation.document
    )
    assert finding._command(of, query) == theirs
    empties: tuple[dict[str, Any] | None, ...] = ({}, None)
    for empty in empties:
        cursor = collection.find({}, empty)
        theirs = message._gen_find_command(
            "things", cursor._query_spec(), cursor._projection, 0, 0, LARGEST_BATCH, 0, ReadConcern()
        )
        assert finding._command(collection, Query({}, empty)) == theirs
    fields = set(re.findall(r'cmd\["(\w+)"\]', inspect.getsource(message._gen_find_command)))
    known = {"filter", "projection", "skip", "limit", "batchSize", "readConcern", "collation"}
    assert fields == known | {"singleBatch", "allowDiskUse"}, "the driver's queries have a field that ours lack"
    assert '"$query" in spec' in inspect.getsource(message._gen_find_command)
    assert '"$explain" in self.spec' in inspect.getsource(message._Query.as_command)


def test_a_client_says_who_needs_more_than_a_plain_query() -> None:
    """`pymongo.finding` leaves it to the driver where anything of this is on."""
    plain: Any = AsyncMongoClient(connect=False)
    assert plain._encrypter is None
    assert plain._event_listeners.enabled_for_commands is False
    assert plain._get_bound_session() is None
    assert plain.options.timeout is None
    assert not plain.options.load_balanced
    assert not plain.options.pool_options._compression_settings.compressors
    compressed = AsyncMongoClient(connect=False, compressors="zlib").options.pool_options
    assert compressed._compression_settings.compressors == ["zlib"]  # type: ignore[union-attr]
    assert not _is_debug_enabled(_COMMAND_LOGGER)
    fast = " ".join(inspect.getsource(command_runner._run_command).split())
    assert (
        "if (topology_id is not None and _is_debug_enabled(_COMMAND_LOGGER)) or ( "
        "listeners is not None and listeners.enabled_for_commands ):"
    ) in fast, "somebody else hears of commands now"


def test_the_drivers_operation_goes_on_from_an_attempt_that_was_made_before() -> None:
    """Its first step is to read, once for a query; `_Retryable._read` then raises what that attempt has met."""
    assert "self._run_with_conn" in inspect.getsource(AsyncCursor._send_message)
    assert inspect.getsource(AsyncMongoClient._run_operation).count("await self._retryable_read(") == 1
    assert inspect.getsource(AsyncMongoClient._retryable_read).count("await self._retry_internal(") == 1
    running = inspect.getsource(_ClientConnectionRetryable.run)
    assert running.count("await self._read()") == 1
    assert running.index("while True:") < running.index("await self._read()")


def test_a_pool_is_cleared_and_closed_in_one_place() -> None:
    """Where `AsyncPool` wakes its waiters; the driver has changed its state before."""
    for name in ("reset", "reset_without_pause", "close"):
        assert "self._reset(" in inspect.getsource(getattr(asynchronous.Pool, name))
    closing = inspect.getsource(asynchronous.Pool._reset)
    assert "PoolState.PAUSED" in closing
    assert "PoolState.CLOSED" in closing
    assert "self.opts.pause_enabled and pause and not self.opts.load_balanced" in closing


async def test_motors_client_connects_when_it_is_told_to() -> None:
    """An asynchronous call of the synchronous client's `_connect`, which asks DNS."""
    assert inspect.isfunction(MongoClient._connect)
    client: Any = motor.motor_asyncio.AsyncIOMotorClient("mongodb://127.0.0.1:1", connect=False)
    await client._connect()
    client.close()


@pytest.mark.parametrize("pool", [asynchronous.Pool, synchronous.Pool])
def test_a_pool_still_has_the_state_that_gauges_read(pool: Any) -> None:
    options = AsyncMongoClient("mongodb://127.0.0.1:1", connect=False)._topology_settings.pool_options
    fresh = pool(("127.0.0.1", 1), options)
    assert (len(fresh.conns), fresh._pending, fresh._max_connecting) == (0, 0, 2)
    assert (fresh.operation_count, fresh.active_sockets) == (0, 0)
    assert list(inspect.signature(fresh._telemetry.checkout_failed).parameters) == ["reason", "error", "start"]
    assert fresh.state == PoolState.PAUSED
    assert not fresh.closed


@pytest.mark.parametrize("pool", [asynchronous, synchronous])
def test_connections_end_where_they_are_counted(pool: Any) -> None:
    """When they can't be opened, when they are closed, and when a broken one is returned."""
    everywhere = inspect.getsource(pool).count(".connection_closed(")
    connection = pool.AsyncConnection if pool is asynchronous else pool.Connection
    counted = (pool.Pool.connect, connection.close_conn, pool.Pool.checkin)
    assert [inspect.getsource(place).count(".connection_closed(") for place in counted] == [1, 1, 1]
    assert everywhere == len(counted)


def test_the_drivers_filler_connects_without_a_handler_and_callers_with_one() -> None:
    """That is how a pool tells a connection that fills it up from one that an operation waits for."""
    assert "await self.connect()" in inspect.getsource(asynchronous.Pool.remove_stale_sockets)
    assert "self.connect(handler=handler)" in inspect.getsource(asynchronous.Pool._get_conn)


def test_the_names_that_the_table_of_errors_reads_are_still_there() -> None:
    """`sluice.errors.PoolClosed`, the label that excludes writes, and what a closed client says."""
    assert issubclass(_PoolClosedError, PyMongoError)
    assert not issubclass(_PoolClosedError, AutoReconnect)
    assert issubclass(_OperationCancelled, AutoReconnect)  # `remove_stale_sockets` catches it as that
    for module in (asynchronous_client, synchronous_client):
        source = inspect.getsource(module)
        # What a repeated write meets doesn't hide what its first attempt met.
        assert 'has_error_label("NoWritesPerformed") and self._last_error' in source
    for topology in (asynchronous_topology, synchronous_topology):
        assert "after close" in inspect.getsource(topology)
    error = PyMongoError()
    error._add_error_label("NoWritesPerformed")
    assert error.has_error_label("NoWritesPerformed")


@pytest.mark.parametrize("pool", [asynchronous.Pool, synchronous.Pool])
def test_what_the_filler_meets_is_overload_unless_the_member_refuses(pool: Any) -> None:
    """That is why a pool that wasn't filled need not tell the driver: it does nothing about errors with this label."""
    assert '_add_error_label("SystemOverloadedError")' in inspect.getsource(pool._handle_connection_error)
    assert "_handle_connection_error" in inspect.getsource(pool.connect)


@pytest.mark.parametrize("pool", [asynchronous, synchronous])
def test_idle_connections_are_closed_in_two_places(pool: Any) -> None:
    """From the pool's right end while it is looked after, and when one is taken: `TrackedPool.keep_minimum`."""
    places = [inspect.getsource(place) for place in (pool.Pool.remove_stale_sockets, pool.Pool._perished)]
    assert inspect.getsource(pool).count("ConnectionClosedReason.IDLE") == 3  # two of them for either flavour
    assert "self.conns[-1].idle_time_seconds() > self.opts.max_idle_time_seconds" in places[0]
    assert "self.conns.pop()" in places[0]
    assert "idle_time_seconds > self.opts.max_idle_time_seconds" in places[1]


def test_server_selection_takes_the_member_with_fewer_operations() -> None:
    """Which is what `AsyncPool` counts waiting ones in."""
    assert "server1.pool.operation_count <= server2.pool.operation_count" in inspect.getsource(Topology._select_server)


def test_operations_are_repeated_where_refusals_end_it() -> None:
    """Our clients make the same call, with an operation of ours."""
    for client, base in ((AsyncClient, AsyncMongoClient), (SyncClient, MongoClient)):
        ours = inspect.signature(client._retry_internal).parameters
        theirs = inspect.signature(base._retry_internal).parameters
        assert list(ours) == list(theirs)
        assert [each.default for each in ours.values()] == [each.default for each in theirs.values()]
        source = inspect.getsource(base._retry_internal)
        assert source.count("_ClientConnectionRetryable(") == 1
        assert {f"{name}={name}," for name in theirs if name != "self"} <= set(source.split())
    for kind in (_ClientConnectionRetryable, SyncRetryable):
        assert "self._read() if self._is_read else" in inspect.getsource(kind.run)
        assert "self._write()" in inspect.getsource(kind.run)
    assert "self._is_not_eligible_for_retry()" in inspect.getsource(_ClientConnectionRetryable.run)
    assert "not self._retryable" in inspect.getsource(_ClientConnectionRetryable._is_not_eligible_for_retry)


def test_a_policy_decides_on_repetitions() -> None:
    """`overload.Sparing` takes its place in an operation that an overloaded member has refused."""
    for kind in (_ClientConnectionRetryable, SyncRetryable):
        source = inspect.getsource(kind.run)
        assert "self._retry_policy.should_retry(self._attempt_number, delay)" in source
        assert "self._retry_policy.backoff(" in source
        assert "self._server = " in inspect.getsource(kind._read)
        assert "self._server = " in inspect.getsource(kind._write)
    for method in ("backoff", "should_retry"):
        ours, theirs = (inspect.signature(getattr(policy, method)) for policy in (overload.Policy, _RetryPolicy))
        assert list(ours.parameters) == list(theirs.parameters)


def test_the_driver_keeps_its_opinion_of_a_member_whose_queue_timed_out() -> None:
    assert "isinstance(error, WaitQueueTimeoutError)" in inspect.getsource(Topology._handle_error)


def test_whoever_ends_a_transaction_names_it() -> None:
    """`pymongo.endings.ENDINGS` is what tells them apart, and `handler.session` what belongs to one."""
    source = inspect.getsource(AsyncClientSession)
    for ending in ENDINGS:
        assert f'self._finish_transaction_with_retry("{ending}")' in source
    assert "self.session = session" in inspect.getsource(_ClientCheckout)


def test_the_drivers_timeout_is_in_context_variables() -> None:
    assert _csot.get_timeout() is _csot.remaining() is None
    with pymongo.timeout(5):
        _csot.set_rtt(0.25)
        assert (_csot.get_timeout(), _csot.get_rtt()) == (5, 0.25)
        assert 4 < (_csot.remaining() or 0) <= 5
    assert "_csot.set_rtt(server.description.min_round_trip_time)" in inspect.getsource(Topology.select_server)


def test_motor_runs_what_ends_something_under_these_names() -> None:
    """`motor.endings.ENDINGS` are the functions themselves."""
    assert ClientSession.end_session in MOTOR_ENDINGS
    for motors, name in ((motor.core.AgnosticBaseCursor, "_async_close"), (motor.core.AgnosticChangeStream, "_close")):
        assert getattr(motors, name).attr_name == "close"
    assert {Cursor.close, CommandCursor.close, RawBatchCursor.close, ChangeStream.close} <= MOTOR_ENDINGS
    assert "_EmptyServerSession()" in inspect.getsource(MongoClient._start_session)  # so it asks no server


def test_motor_asks_its_framework_for_a_way_into_the_threads() -> None:
    assert list(inspect.signature(motor.frameworks.asyncio.run_on_executor).parameters) == [
        "loop", "fn", "args", "kwargs",
    ]  # fmt: skip
    assert list(inspect.signature(motor.frameworks.asyncio.add_future).parameters) == [
        "loop", "future", "callback", "args",
    ]  # fmt: skip
    client_class = create_class_with_framework(motor.core.AgnosticClient, motor.frameworks.asyncio, "x")
    assert client_class._framework is motor.frameworks.asyncio
