"""Connection pools for MongoDB that you can see, size and trust. Knows MongoDB and asyncio; no web framework."""

from sluice.client import Sluice
from sluice.errors import DeadlineExceeded, NotPrepared, PoolError, PoolUnavailable, QueueFull, QueueTimeout
from sluice.options import Options
from sluice.statistics.slots import Slot

__all__ = [
    "DeadlineExceeded",
    "NotPrepared",
    "Options",
    "PoolError",
    "PoolUnavailable",
    "QueueFull",
    "QueueTimeout",
    "Slot",
    "Sluice",
]
