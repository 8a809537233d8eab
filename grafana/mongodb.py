"""MongoDB: what the members say of themselves."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.limits import threshold
from grafana.panels import MEMBERS, UP_OR_DOWN, board, graph, number
from grafana.promql import MEMBER, or_zero, rate

ONE = "{{member}}"
OPEN = 'db_client_connection_count{server_address=~"$member"}'


def _each(metric: str) -> str:
    """Every container asks every member: each counts once."""
    return f"max by (member) ({metric}{{{MEMBER}}})"


def _rate(metric: str, by: str) -> str:
    """As `_each`, for a counter: the containers count the same thing, so the largest rate is the rate."""
    return f"max by ({by}) ({rate(metric, MEMBER, f'instance, {by}')})"


NOW = (
    number(
        "Members", "Whether the member answers.", (_each("mongodb_member_up"), ONE), unit="none", names=True,
        base="red", steps=(("green", 1),), mappings=(UP_OR_DOWN,), width=8,
    ),
    number(
        "Roles", "What each member says it is.",
        (f"max by (member, role) (mongodb_member_role{{{MEMBER}}})", "{{member}} {{role}}"), unit="none", names=True,
        mappings=(dashboard.ValueMap(options={"1": dashboard.ValueMappingResult(text="now")}),), width=8,
    ),
    number(
        "Primaries", "Members that say they are the primary: one, but for moments of an election.",
        ("sluice:primaries:count", "primaries"), unit="none", base="red", steps=(("green", threshold("NoPrimary")),),
        width=4,
    ),
    number(
        "Replication lag", "Of the member that is furthest behind.",
        (or_zero(f"max(sluice:replication_lag_seconds:max{{{MEMBER}}})"), "lag"), unit="s",
        steps=(("red", threshold("ReplicationLag")),), width=4,
    ),
)  # fmt: skip

CONNECTIONS = (
    graph(
        "Open connections", "Everybody's: Sluice's, the other members', operators'.",
        (_each("mongodb_member_connections_current"), ONE), unit="none",
    ),
    graph(
        "Share of the limit", "Open connections, of those that the member accepts.",
        (f"sluice:member_connections:ratio{{{MEMBER}}}", ONE), unit="percentunit", maximum=1,
        steps=(("red", threshold("MemberConnectionsNearLimit")),),
    ),
    graph(
        "Accepted", "New connections per second, everybody's.",
        (_rate("mongodb_member_connections_created_total", "member"), ONE), unit="ops",
    ),
    graph(
        "Both sides", "Connections that Sluice's pools have open, and those that the member counts. The difference is"
        " monitors (2 per worker), other members and other clients.",
        (
            f"sum by (member) (label_replace({OPEN}, 'member', '$1', 'server_address', '(.+)'))",
            "pools · {{member}}",
        ),
        (_each("mongodb_member_connections_current"), "member · {{member}}"), unit="none", width=12,
    ),
    graph(
        "Replication lag", "Time behind the primary. From 10 s on the primary slows writes down.",
        (or_zero(f"sluice:replication_lag_seconds:max{{{MEMBER}}}", "member", "no primary"), ONE), unit="s",
        steps=(("red", threshold("ReplicationLag")),), width=12,
    ),
)  # fmt: skip

WORK = (
    graph(
        "Operations by kind", "Per second, all members. Secondaries count what they replicate apart.",
        (
            f"sum by (kind) ({_rate('mongodb_member_operations_total', 'member, kind')})",
            "{{kind}}",
        ),
        unit="ops", stacked=True,
    ),
    graph(
        "Operations by member", "Per second, all kinds.",
        (f"sum by (member) ({_rate('mongodb_member_operations_total', 'member, kind')})", ONE), unit="ops",
        stacked=True,
    ),
    graph(
        "Cache", "Bytes in the storage engine's cache, of its limit. It evicts from 80% on; at 95% requests must help.",
        (f"{_each('mongodb_member_cache_used_bytes')} / {_each('mongodb_member_cache_max_bytes')}", ONE),
        unit="percentunit", maximum=1, steps=(("orange", 0.8), ("red", 0.95)),
    ),
    graph(
        "Cache in use", "Bytes in the storage engine's cache.", (_each("mongodb_member_cache_used_bytes"), ONE),
        unit="bytes",
    ),
    graph(
        "Changed bytes in the cache", "Not yet written to the data files, of the cache's limit. From 20% on writes slow"
        " down.",
        (f"{_each('mongodb_member_cache_dirty_bytes')} / {_each('mongodb_member_cache_max_bytes')}", ONE),
        unit="percentunit", steps=(("orange", 0.05), ("red", 0.2)),
    ),
    graph(
        "Disk in use", "Of the file system that the data are on, by whomever. A member without room to write ends"
        " itself.",
        (f"sluice:member_disk:ratio{{{MEMBER}}}", ONE), unit="percentunit", maximum=1,
        steps=(("orange", threshold("MemberDiskFills")), ("red", threshold("MemberDiskNearlyFull"))),
    ),
)  # fmt: skip


def build() -> dashboard.Dashboard:
    return board(
        "sluice-mongodb",
        "Sluice / MongoDB",
        "The members' own view: roles, connections, lag, operations, cache.",
        (MEMBERS,),
        (("Now", NOW), ("Connections and replication", CONNECTIONS), ("Work and cache", WORK)),
    )
