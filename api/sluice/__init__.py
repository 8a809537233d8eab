"""Connection pools for MongoDB that you can see, size and trust. Knows MongoDB and asyncio; no web framework.

An application opens a `Sluice` with its `Options` in each worker, and uses its `reader`, `writer`, `collection`,
`with_transaction`, `watch` or `client`. `deadline.limit` gives a request its time, `timings.collect` says where that
went, `statistics` are what the workers know. Everything that may be relied on is here, or in these three modules.
"""

from typing import TYPE_CHECKING, Any

from sluice import deadline, statistics, timings
from sluice.changes import Changes
from sluice.client import Sluice
from sluice.coalescing.coalescer import Limits
from sluice.coalescing.reader import Reader
from sluice.coalescing.writer import Writer, write_error
from sluice.drivers.members import ReadPreference, Role
from sluice.errors import (
    NOTHING_WRITTEN,
    REFUSAL_CODES,
    Abandoned,
    DeadlineExceeded,
    NotPrepared,
    PoolClosed,
    PoolError,
    PoolUnavailable,
    QueueFull,
    QueueTimeout,
    brief,
)
from sluice.extras import installed, missing
from sluice.options import Driver, Options, url_options
from sluice.pool.budget import Demand, largest_pool
from sluice.readiness import Prepare
from sluice.statistics.slots import Slot

if TYPE_CHECKING:
    from sluice.statistics.metrics import SluiceCollector as SluiceCollector

__all__ = [
    "NOTHING_WRITTEN",
    "REFUSAL_CODES",
    "Abandoned",
    "Changes",
    "DeadlineExceeded",
    "Demand",
    "Driver",
    "Limits",
    "NotPrepared",
    "Options",
    "PoolClosed",
    "PoolError",
    "PoolUnavailable",
    "Prepare",
    "QueueFull",
    "QueueTimeout",
    "ReadPreference",
    "Reader",
    "Role",
    "Slot",
    "Sluice",
    "Writer",
    "brief",
    "deadline",
    "largest_pool",
    "statistics",
    "timings",
    "url_options",
    "write_error",
]
if installed("prometheus_client"):  # what needs an extra isn't offered without it
    __all__ += ["SluiceCollector"]


def __getattr__(name: str) -> Any:
    """What needs an extra is imported when it is first asked for."""
    if name != "SluiceCollector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from sluice.statistics.metrics import SluiceCollector
    except ModuleNotFoundError as error:
        raise missing("sluice.SluiceCollector", error) from None
    return SluiceCollector
