"""Everything that Sluice can be told, as plain values; times in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import unquote_plus

Driver = Literal["pymongo", "motor"]

GOVERNED = {
    "maxpoolsize": "max_pool_size",
    "minpoolsize": "min_pool_size",
    "maxidletimems": "max_idle_time",
    "connecttimeoutms": "connect_timeout",
    "sockettimeoutms": "socket_timeout",
    "serverselectiontimeoutms": "server_selection_timeout",
    "heartbeatfrequencyms": "heartbeat_frequency",
    "waitqueuetimeoutms": "wait_queue_timeout",
    "waitqueuemultiple": "wait_queue_multiple",
}
"""The driver's options, in small letters, that a field decides: said twice, one would silently lose."""
_ONLY_HERE = {"host": "url", "port": "url", "appname": "app_name", "_pool_class": "driver", "io_loop": "driver"}
_LEAST = {
    "max_pool_size": 1,
    "min_pool_size": 0,
    "wait_queue_multiple": 0,
    "lanes": 1,
    "batch": 1,
    "batch_bytes": 1,
    "planned_connections": 0,
}
_TIMES = (
    "max_idle_time",
    "connect_timeout",
    "socket_timeout",
    "server_selection_timeout",
    "heartbeat_frequency",
    "wait_queue_timeout",
    "slow_operation",
)
_TEXTS = ("url", "database", "monitoring_url", "app_name")
LEAST_HEARTBEAT = 0.5
"""Seconds; the driver's own limit."""
MOST_SECONDS = 10_000_000
"""Four months: what is longer is a mistake, and no timer takes it."""


def milliseconds(seconds: float) -> int:
    """As the driver's options and the settings have them. Whole ones stay: 1.001 times 1000 is less than 1001."""
    return round(seconds * 1000)


def url_options(url: str) -> Iterator[tuple[str, str]]:
    """The options in a connection string as they are written, not decoded."""
    for pair in filter(None, re.split("[&;]", url.partition("://")[2].partition("?")[2])):
        name, _, value = pair.partition("=")
        yield name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one worker connects to MongoDB.

    `monitoring_url` is for the members' own view and defaults to `url`. `planned_connections` is what all workers may
    open to each member (`budget.Demand`); a member that accepts fewer is warned about. `lanes`, `batch` and
    `batch_bytes` are the limits of coalesced reads and writes (`coalescing.Limits`).

    `client`: further keyword arguments of the driver's client, such as `event_listeners`, `server_api`, `tlsCAFile`,
    `auto_encryption_opts`, `tz_aware` or `type_registry`; the driver's defaults hold for what neither they nor the URL
    give. An `appName` in the URL counts where `app_name` isn't given.

    Raises `ValueError`, which names the option and what is allowed, for a value of another kind or out of its range,
    for an option of the driver that a field decides or that is given both in the URL and in `client`, and for `w=0`:
    nobody would hear of a write that failed.
    """

    url: str
    database: str
    monitoring_url: str | None = None
    driver: Driver = "pymongo"
    max_pool_size: int = 100
    min_pool_size: int = 0
    max_idle_time: float | None = 30.0
    connect_timeout: float = 5.0
    socket_timeout: float = 10.0
    server_selection_timeout: float = 5.0
    heartbeat_frequency: float = 10.0
    wait_queue_timeout: float = 5.0
    wait_queue_multiple: int = 5
    slow_operation: float = 0.1
    lanes: int = 2
    batch: int = 500
    batch_bytes: int = 4 << 20
    app_name: str = ""
    planned_connections: int = 0
    client: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _TEXTS:
            text = getattr(self, name)
            if not isinstance(text, str) and not (text is None and name == "monitoring_url"):
                shown = "***" if "url" in name and text is not None else repr(text)
                raise ValueError(f"option {name}={shown}: allowed is a text")
        if not self.database:
            raise ValueError("option database='': allowed is a name")
        if self.driver not in get_args(Driver):
            raise ValueError(f"option driver={self.driver!r}: allowed are {' and '.join(get_args(Driver))}")
        if not isinstance(self.client, Mapping) or not all(isinstance(name, str) for name in self.client):
            raise ValueError("option client: allowed is a mapping from the driver's names of options to values")
        for name, least in _LEAST.items():
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(f"option {name}={number!r}: allowed is a whole number, {least} or more")
        if self.min_pool_size > self.max_pool_size:
            most = f"max_pool_size, {self.max_pool_size}"
            raise ValueError(f"option min_pool_size={self.min_pool_size}: allowed is up to {most}")
        for name in _TIMES:
            seconds = getattr(self, name)
            if seconds is None and name == "max_idle_time":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
                raise ValueError(f"option {name}={seconds!r}: allowed is more than 0, in seconds")
            shortest = LEAST_HEARTBEAT if name == "heartbeat_frequency" else 0.001
            if not shortest <= seconds <= MOST_SECONDS:
                raise ValueError(f"option {name}={seconds!r}: allowed is {shortest} to {MOST_SECONDS}, in seconds")
        in_url = {name.lower(): (name, value) for name, value in url_options(self.url)}
        given = {name.lower(): (name, value) for name, value in self.client.items()}
        for url in (self.url, self.monitoring_url or ""):
            for name, _ in url_options(url):
                if ours := GOVERNED.get(name.lower()):
                    raise ValueError(f"option {name} in the URL: set {ours} instead")
        for key, (name, _) in given.items():
            if ours := (GOVERNED | _ONLY_HERE).get(key):
                raise ValueError(f"option {name} in client: set {ours} instead")
            if key in in_url:
                raise ValueError(f"option {name} is given in the URL and in client: allowed is one of them")
        concerns = [unquote_plus(in_url["w"][1])] if "w" in in_url else []
        concerns += [str(given["w"][1])] if "w" in given else []
        if any(re.fullmatch(r"\s*[+-]?0+\s*|", concern) for concern in concerns):
            raise ValueError("option w=0: allowed is 1 or more, a tag or majority; nobody would hear of failed writes")
        if not self.app_name:
            object.__setattr__(self, "app_name", unquote_plus(in_url.get("appname", ("", "sluice"))[1]))

    def __repr__(self) -> str:
        return f"Options(driver={self.driver!r}, database={self.database!r}, max_pool_size={self.max_pool_size})"

    @property
    def queue_limit(self) -> int:
        """How many operations may wait before a turnstile refuses the next."""
        return self.max_pool_size * self.wait_queue_multiple
