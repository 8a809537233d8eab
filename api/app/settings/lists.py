"""Settings that are lists, separated by commas: each item is checked, and written as it is compared later."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

Network = IPv4Network | IPv6Network

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_OWN_PORT = {"http": 80, "https": 443}


def _origins(given: object) -> tuple[str, ...]:
    """What `CORS_ORIGINS` lists. Raises `ValueError` for what no browser would send: it would never match."""
    items = _items(given)
    if items == ("*",):
        return items
    for item in items:
        found = _ORIGIN.fullmatch(item)
        port = int(found[3] or 0) if found else 0
        if found is None or port > 65_535 or port == _OWN_PORT.get(found[1]):
            raise ValueError(item)
    return items


def _networks(given: object) -> tuple[Network, ...]:
    """What `TRUSTED_PROXIES` lists. Raises `ValueError`, also for 0.0.0.0/0: anybody could then be anybody."""
    found = tuple(ip_network(item) for item in _items(given))
    for network in found:
        if network.prefixlen == 0 or "%" in str(network):
            raise ValueError(str(network))
    return found


def _items(given: object) -> tuple[str, ...]:
    """The items of a comma-separated text, without blanks and repetitions."""
    parts = given.split(",") if isinstance(given, str) else map(str, given) if isinstance(given, tuple | list) else ()
    return tuple(dict.fromkeys(item for part in parts if (item := part.strip())))


Origins = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(_origins),
    Field(
        default_factory=tuple,
        description="* alone, or origins as browsers send them, separated by commas: scheme://host or scheme://host:port"
        " in lower case, without a path or the scheme's own port",
    ),
]
Networks = Annotated[
    tuple[Network, ...],
    NoDecode,
    BeforeValidator(_networks),
    Field(
        default_factory=tuple,
        description="addresses and networks, separated by commas, such as 10.0.0.0/8, and none that is everybody",
    ),
]
