"""How members are named, and which of them may be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from pymongo.read_preferences import Nearest, Primary, PrimaryPreferred, Secondary, SecondaryPreferred
from pymongo.topology_description import TopologyDescription

Address: TypeAlias = tuple[str, int | None]
ReadPreference: TypeAlias = Primary | PrimaryPreferred | Secondary | SecondaryPreferred | Nearest
Role: TypeAlias = Literal[
    "Unknown",
    "Mongos",
    "RSPrimary",
    "RSSecondary",
    "RSArbiter",
    "RSOther",
    "RSGhost",
    "Standalone",
    "LoadBalancer",
]
"""What a member is, as the drivers' specification names it (`pymongo.server_type.SERVER_TYPE`)."""


def name_of(address: Address) -> str:
    """`host:port`, as the replica set's configuration has it; `[host]:port` of IPv6, and the path of a socket."""
    host, port = address
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def eligible(topology: TopologyDescription, read_preference: Callable[[Any], Any]) -> set[str]:
    """The members that this read preference may use now, as `host:port`."""
    return {name_of(server.address) for server in topology.apply_selector(read_preference)}
