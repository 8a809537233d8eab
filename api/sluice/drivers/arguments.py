"""What `Options` mean to a driver's client, and to the turnstile before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sluice.options import Options, milliseconds
from sluice.pool.turnstile import Turnstile
from sluice.statistics.snapshot import PoolStats


def is_srv(options: Options) -> bool:
    """Whether DNS must be asked for the members; until it has answered there is nothing to connect to."""
    return options.url.startswith("mongodb+srv:")


def client_arguments(options: Options, app_name: str) -> dict[str, Any]:
    """The keyword arguments of the client, but for `_pool_class`."""
    return {
        **options.client,
        "host": options.url,
        "appname": app_name,
        "maxPoolSize": options.max_pool_size,
        "minPoolSize": options.min_pool_size,
        "maxIdleTimeMS": None if options.max_idle_time is None else milliseconds(options.max_idle_time),
        "connectTimeoutMS": milliseconds(options.connect_timeout),
        "socketTimeoutMS": milliseconds(options.socket_timeout),
        "serverSelectionTimeoutMS": milliseconds(options.server_selection_timeout),
        "heartbeatFrequencyMS": milliseconds(options.heartbeat_frequency),
        "waitQueueTimeoutMS": milliseconds(options.wait_queue_timeout),
    }


def make_turnstile(
    options: Options, name: str, stats: PoolStats, has_room: Callable[[], bool] = lambda: True
) -> Turnstile:
    """A turnstile with as many permits as a pool may open connections."""
    return Turnstile(
        name,
        permits=options.max_pool_size,
        queue_limit=options.queue_limit,
        timeout=options.wait_queue_timeout,
        stats=stats,
        has_room=has_room,
    )
