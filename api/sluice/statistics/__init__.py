"""What the workers know, how it is shared between them, and how it is shown.

Every statistic is declared once, as a field of a dataclass here (`PoolStats`, `WorkerSnapshot`, …); `figures_of` lists
them with name, unit and meaning. `read_all` reads what the workers of a container have published, `summarize` adds that
up.
"""

from sluice.statistics.figures import Figure, figures_of
from sluice.statistics.histogram import Histogram
from sluice.statistics.slots import Slot, read_all
from sluice.statistics.snapshot import (
    ANY_MEMBER,
    TABLES,
    CoalescerStats,
    ConnectionPlan,
    MemberStatus,
    OperationStats,
    PoolConfig,
    PoolSnapshot,
    PoolStats,
    WorkerSnapshot,
    metric_names,
)
from sluice.statistics.summary import ContainerSummary, Distribution, MemberSummary, as_json, summarize

__all__ = [
    "ANY_MEMBER",
    "TABLES",
    "CoalescerStats",
    "ConnectionPlan",
    "ContainerSummary",
    "Distribution",
    "Figure",
    "Histogram",
    "MemberStatus",
    "MemberSummary",
    "OperationStats",
    "PoolConfig",
    "PoolSnapshot",
    "PoolStats",
    "Slot",
    "WorkerSnapshot",
    "as_json",
    "figures_of",
    "metric_names",
    "read_all",
    "summarize",
]
