"""What `Options` mean to a driver's client, and to the turnstile before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sluice.options import Options
from sluice.pool.turnstile import Turnstile
from sluice.statistics.snapshot import PoolStats


def is_srv(options: Options) -> bool:
    """Whether DNS must be asked for the members; until it has answered there is nothing to connect to."""
    return options.url.startswith("mongodb+srv:")


def client_arguments(options: Options, app_name: str) -> dict[str, Any]:
    """The keyword arguments of the client, but for `_pool_class`."""
    codec = {"tz_aware": True, "uuidRepresentation": "standard"}
    return {
        **{name: value for name, value in codec.items() if name.lower() not in options.given},
        **options.client,
        "host": options.url,
        "appname": app_name,
        "maxPoolSize": options.max_pool_size,
        "minPoolSize": options.min_pool_size,
        "maxIdleTimeMS": None if options.max_idle_time is None else int(options.max_idle_time * 1000),
        "connectTimeoutMS": int(options.connect_timeout * 1000),
        "socketTimeoutMS": int(options.socket_timeout * 1000),
        "serverSelectionTimeoutMS": int(options.server_selection_timeout * 1000),
        "heartbeatFrequencyMS": int(options.heartbeat_frequency * 1000),
        "waitQueueTimeoutMS": int(options.wait_queue_timeout * 1000),
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
