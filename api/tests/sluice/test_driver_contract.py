"""What `sluice.pools` relies on inside the pinned drivers: when one fails after an upgrade, read that module."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import motor.core
import motor.frameworks.asyncio
import pytest
from motor.metaprogramming import create_class_with_framework
from pymongo import AsyncMongoClient, MongoClient
from pymongo.asynchronous import mongo_client as asynchronous_client
from pymongo.asynchronous import pool as asynchronous
from pymongo.asynchronous import topology as asynchronous_topology
from pymongo.errors import AutoReconnect, PyMongoError, _OperationCancelled
from pymongo.pool_shared import PoolState, _PoolClosedError
from pymongo.synchronous import mongo_client as synchronous_client
from pymongo.synchronous import pool as synchronous
from pymongo.synchronous import topology as synchronous_topology


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
        (asynchronous.Pool, "checkin", ["self", "conn"]),
        (asynchronous.Pool, "remove_stale_sockets", ["self", "reference_generation"]),
        (asynchronous.Pool, "_reset", ["self", "close", "pause", "service_id", "interrupt_connections"]),
        (asynchronous.AsyncConnection, "apply_timeout", ["self", "cmd"]),
        (asynchronous.AsyncConnection, "close_conn", ["self", "reason"]),
        (synchronous.Pool, "__init__", ["self", "address", "options", "is_sdam", "client_id"]),
        (synchronous.Pool, "_get_conn", ["self", "checkout_started_time", "handler"]),
        (synchronous.Pool, "connect", ["self", "handler"]),
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
    ],
)
def test_overridden_methods_still_have_these_parameters(pool: type, method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(pool, method)).parameters) == parameters


@pytest.mark.parametrize("pool", [asynchronous.Pool, synchronous.Pool])
def test_a_pool_still_has_the_state_that_gauges_read(pool: Any) -> None:
    options = AsyncMongoClient("mongodb://127.0.0.1:1", connect=False)._topology_settings.pool_options
    fresh = pool(("127.0.0.1", 1), options)
    assert (len(fresh.conns), fresh._pending, fresh._max_connecting) == (0, 0, 2)
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


def test_motor_asks_its_framework_for_a_way_into_the_threads() -> None:
    assert list(inspect.signature(motor.frameworks.asyncio.run_on_executor).parameters) == [
        "loop", "fn", "args", "kwargs",
    ]  # fmt: skip
    client_class = create_class_with_framework(motor.core.AgnosticClient, motor.frameworks.asyncio, "x")
    assert client_class._framework is motor.frameworks.asyncio
