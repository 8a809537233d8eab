"""What Sluice relies on inside the pinned drivers: when one fails after an upgrade, read the modules that it names."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import motor.core
import motor.frameworks.asyncio
import motor.motor_asyncio
import pymongo
import pytest
from motor.metaprogramming import create_class_with_framework
from pymongo import AsyncMongoClient, MongoClient, _csot, pool_shared
from pymongo.asynchronous import mongo_client as asynchronous_client
from pymongo.asynchronous import pool as asynchronous
from pymongo.asynchronous import topology as asynchronous_topology
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.mongo_client import _ClientCheckout, _ClientConnectionRetryable
from pymongo.asynchronous.topology import Topology
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor, RawBatchCursor
from pymongo.errors import AutoReconnect, PyMongoError, _OperationCancelled
from pymongo.helpers_shared import _RetryPolicy
from pymongo.pool_shared import PoolState, _PoolClosedError
from pymongo.synchronous import mongo_client as synchronous_client
from pymongo.synchronous import pool as synchronous
from pymongo.synchronous import topology as synchronous_topology
from pymongo.synchronous.mongo_client import _ClientConnectionRetryable as SyncRetryable

from sluice.drivers import overload
from sluice.drivers.motor.client import SyncClient
from sluice.drivers.motor.endings import ENDINGS as MOTOR_ENDINGS
from sluice.drivers.motor.pool import CountedConnection as MotorConnection
from sluice.drivers.pools import adopt
from sluice.drivers.pymongo.client import AsyncClient
from sluice.drivers.pymongo.endings import ENDINGS
from sluice.drivers.pymongo.pool import CountedConnection as PyMongoConnection
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
    "_ClientCheckout": Private(
        BOTH_CLIENTS,
        "what a checkout is made for: its session tells what belongs to a transaction",
        "test_whoever_ends_a_transaction_names_it",
    ),
    "_ClientConnectionRetryable": Private(
        BOTH_CLIENTS, "an operation and its retries", "test_operations_are_repeated_where_refusals_end_it"
    ),
    "_OperationCancelled": Private(
        ("pymongo.errors", "pymongo.network_layer"),
        "what the driver's filler meets when its pool is cleared",
        "test_the_names_that_the_table_of_errors_reads_are_still_there",
    ),
    "_PoolClosedError": Private(
        ("pymongo.pool_shared", *BOTH_POOLS),
        "what an operation meets when its client closes",
        "test_the_names_that_the_table_of_errors_reads_are_still_there",
    ),
    "_add_error_label": Private(
        ("pymongo.errors",),
        "how an error says that nothing was written, or that a transaction may be repeated",
        "test_the_names_that_the_table_of_errors_reads_are_still_there",
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
    "_end_sessions": Private(BOTH_CLIENTS[:1], "ends sessions on the server, through a full queue", PARAMETERS),
    "_framework": Private(
        ("motor.core", "motor.metaprogramming"),
        "Motor's way into the threads",
        "test_motor_asks_its_framework_for_a_way_into_the_threads",
    ),
    "_get_conn": Private(BOTH_POOLS, "every checkout passes through it", "test_every_checkout_and_return_is_counted"),
    "_kill_cursors": Private(BOTH_CLIENTS[:1], "ends cursors on the server, through a full queue", PARAMETERS),
    "_max_connecting": Private(("pymongo.pool_shared",), "how many connections may be opened at a time", STATE),
    "_pending": Private(("pymongo.pool_shared", *BOTH_POOLS), "how many connections are being opened", STATE),
    "_perished": Private(
        BOTH_POOLS, "closes what was idle for too long", "test_idle_connections_are_closed_in_two_places"
    ),
    "_pool_class": Private(BOTH_CLIENTS, "how a client gets its pools", "test_clients_take_a_pool_class"),
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
