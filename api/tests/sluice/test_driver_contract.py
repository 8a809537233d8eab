"""What Sluice relies on inside the pinned drivers: when one fails after an upgrade, read the modules that it names."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import motor.core
import motor.frameworks.asyncio
import pymongo
import pytest
from motor.metaprogramming import create_class_with_framework
from pymongo import AsyncMongoClient, MongoClient, _csot
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
from pymongo.pool_shared import PoolState, _PoolClosedError
from pymongo.synchronous import mongo_client as synchronous_client
from pymongo.synchronous import pool as synchronous
from pymongo.synchronous import topology as synchronous_topology

from sluice.drivers.clients import AsyncClient
from sluice.drivers.finishing import ENDINGS, MOTOR_ENDINGS


def test_the_versions_are_the_ones_that_were_read() -> None:
    assert (version("pymongo"), version("motor")) == ("4.20.0", "3.7.1")


@pytest.mark.parametrize("client", [AsyncMongoClient, MongoClient])
def test_clients_take_a_pool_class(client: Any) -> None:
    made: list[tuple[Any, ...]] = []

    def make(*arguments: Any, **_: Any) -> None:
        made.append(arguments)

    settings = client("mongodb://127.0.0.1:1", connect=False, _pool_class=make)._topology_settings
    assert settings.pool_class is make


@pytest.mark.parametrize(
    ("pool", "method", "parameters"),
    [
        (asynchronous.Pool, "__init__", ["self", "address", "options", "is_sdam", "client_id"]),
        (asynchronous.Pool, "_get_conn", ["self", "checkout_started_time", "handler"]),
        (asynchronous.Pool, "connect", ["self", "handler"]),
        (asynchronous.Pool, "_perished", ["self", "conn"]),
        (asynchronous.Pool, "checkin", ["self", "conn"]),
        (asynchronous.Pool, "remove_stale_sockets", ["self", "reference_generation"]),
        (asynchronous.Pool, "_reset", ["self", "close", "pause", "service_id", "interrupt_connections"]),
        (asynchronous.AsyncConnection, "apply_timeout", ["self", "cmd"]),
        (asynchronous.AsyncConnection, "close_conn", ["self", "reason"]),
        (synchronous.Pool, "__init__", ["self", "address", "options", "is_sdam", "client_id"]),
        (synchronous.Pool, "_get_conn", ["self", "checkout_started_time", "handler"]),
        (synchronous.Pool, "connect", ["self", "handler"]),
        (synchronous.Pool, "_perished", ["self", "conn"]),
        (synchronous.Pool, "checkin", ["self", "conn"]),
        (synchronous.Pool, "remove_stale_sockets", ["self", "reference_generation"]),
        (synchronous.Connection, "apply_timeout", ["self", "cmd"]),
        (synchronous.Connection, "close_conn", ["self", "reason"]),
        (
            AsyncMongoClient,
            "_select_server",
            ["self", "server_selector", "session", "operation", "address", "deprioritized_servers", "operation_id"],
        ),
        (
            MongoClient,
            "_select_server",
            ["self", "server_selector", "session", "operation", "address", "deprioritized_servers", "operation_id"],
        ),
        (AsyncMongoClient, "_kill_cursors", ["self", "cursor_ids", "address", "topology", "session"]),
        (AsyncMongoClient, "_end_sessions", ["self", "session_ids"]),
        (_ClientConnectionRetryable, "_read", ["self"]),
        (motor.core.AgnosticClient, "wrap", ["self", "obj"]),
        (motor.core.AgnosticClientSession, "__aexit__", ["self", "exc_type", "exc_val", "exc_tb"]),
    ],
)
def test_overridden_methods_still_have_these_parameters(pool: type, method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(pool, method)).parameters) == parameters


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
    assert issubclass(_OperationCancelled, AutoReconnect)
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
    """From the pool's right end while it is looked after, and when one is taken: `pools._keep_minimum`."""
    places = [inspect.getsource(place) for place in (pool.Pool.remove_stale_sockets, pool.Pool._perished)]
    assert inspect.getsource(pool).count("ConnectionClosedReason.IDLE") == 3  # two of them for either flavour
    assert "self.conns[-1].idle_time_seconds() > self.opts.max_idle_time_seconds" in places[0]
    assert "self.conns.pop()" in places[0]
    assert "idle_time_seconds > self.opts.max_idle_time_seconds" in places[1]


def test_server_selection_takes_the_member_with_fewer_operations() -> None:
    """Which is what `pools.AsyncPool` counts waiting ones in."""
    assert "server1.pool.operation_count <= server2.pool.operation_count" in inspect.getsource(Topology._select_server)


def test_operations_are_repeated_where_refusals_end_it() -> None:
    """`driver_clients.AsyncClient` makes the same call, with an operation that isn't repeated once it was refused."""
    ours = inspect.signature(AsyncClient._retry_internal).parameters
    theirs = inspect.signature(AsyncMongoClient._retry_internal).parameters
    assert list(ours) == list(theirs)
    assert [parameter.default for parameter in ours.values()] == [parameter.default for parameter in theirs.values()]
    source = inspect.getsource(AsyncMongoClient._retry_internal)
    assert source.count("_ClientConnectionRetryable(") == 1
    assert {f"{name}={name}," for name in theirs if name != "self"} <= set(source.split())
    assert "self._is_not_eligible_for_retry()" in inspect.getsource(_ClientConnectionRetryable.run)
    assert "not self._retryable" in inspect.getsource(_ClientConnectionRetryable._is_not_eligible_for_retry)


def test_the_driver_keeps_its_opinion_of_a_member_whose_queue_timed_out() -> None:
    assert "isinstance(error, WaitQueueTimeoutError)" in inspect.getsource(Topology._handle_error)


def test_whoever_ends_a_transaction_names_it() -> None:
    """`finishing.ENDINGS` is what tells them apart, and `handler.session` what belongs to one."""
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
    """`finishing.MOTOR_ENDINGS` are the functions themselves."""
    assert ClientSession.end_session in MOTOR_ENDINGS
    for motors, name in ((motor.core.AgnosticBaseCursor, "_async_close"), (motor.core.AgnosticChangeStream, "_close")):
        assert getattr(motors, name).attr_name == "close"
    assert {Cursor.close, CommandCursor.close, RawBatchCursor.close, ChangeStream.close} <= MOTOR_ENDINGS
    assert "_EmptyServerSession()" in inspect.getsource(MongoClient._start_session)  # so it asks no server


def test_motor_asks_its_framework_for_a_way_into_the_threads() -> None:
    assert list(inspect.signature(motor.frameworks.asyncio.run_on_executor).parameters) == [
        "loop", "fn", "args", "kwargs",
    ]  # fmt: skip
    client_class = create_class_with_framework(motor.core.AgnosticClient, motor.frameworks.asyncio, "x")
    assert client_class._framework is motor.frameworks.asyncio
