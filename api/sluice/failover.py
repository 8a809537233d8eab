"""What waits for a member that is primary no more, and can't say so.

A member that hangs (a frozen machine, a lost network) answers nothing. Once another one was elected, the drivers begin
nothing new on it, but what they have begun waits for its socket's timeout: seconds in which the new primary would
serve it. The drivers interrupt connections where a monitor notices the silence; an election tells sooner.
"""

from __future__ import annotations

from pymongo.topology_description import TopologyDescription

from sluice.drivers.connected import Connected, MemberPool
from sluice.drivers.members import name_of


class Failover:
    """Asked every now and then, it tells which pools wait in vain."""

    def __init__(self) -> None:
        self._suspects: set[str] = set()

    def deposed(self, connected: Connected) -> list[MemberPool]:
        """The pools of members that nothing is known of any more, though there is a primary; to be interrupted.

        Only the second time that it's so: one that has just stepped down is unknown for a moment, and does answer.
        """
        unknown = _unknown_beside_a_primary(connected.topology)
        found = {name for name in unknown if (pool := connected.pools.get(name)) and pool.is_waited_for}
        confirmed = found & self._suspects
        self._suspects = found - confirmed
        return [connected.pools[name] for name in confirmed]


def _unknown_beside_a_primary(topology: TopologyDescription) -> set[str]:
    if not topology.has_writable_server():
        return set()
    servers = topology.server_descriptions().values()
    return {name_of(server.address) for server in servers if not server.is_server_type_known}
