"""What `Options` mean to a driver's client, and to the turnstile before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.errors import ConfigurationError, InvalidURI

from sluice.options import Options, milliseconds
from sluice.pool.turnstile import Turnstile
from sluice.statistics.snapshot import PoolStats


def is_srv(options: Options) -> bool:
    """Whether DNS must be asked for the members; until it has answered there is nothing to connect to."""
    return options.url.startswith("mongodb+srv:")


_QUOTED = re.compile(r"""(["'])(.*?)\1""")


@contextmanager
def without_secrets(url: str) -> Iterator[None]:
    """The driver quotes parts of a connection string that it doesn't understand: of a password that has a `/`, say."""
    try:
        yield
    except (InvalidURI, ConfigurationError, ValueError) as error:
        hosts = url.partition("://")[2].partition("?")[0]

        def hidden(quoted: re.Match[str]) -> str:
            return "***" if quoted[2] and quoted[2] in hosts else quoted[0]

        raise type(error)(_QUOTED.sub(hidden, str(error))) from None


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
