"""Everything that Sluice can be told, as plain values; times in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Driver = Literal["pymongo", "motor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one worker connects to MongoDB.

    `monitoring_url` is for the members' own view and defaults to `url`. `planned_connections` is what all workers may
    open to each member (`budget.Demand`); a member that accepts fewer is warned about. `lanes`, `batch` and
    `batch_bytes` are the limits of coalesced reads and writes (`coalescing.Limits`).
    """

    url: str
    database: str
    monitoring_url: str | None = None
    driver: Driver = "pymongo"
    max_pool_size: int = 100
    min_pool_size: int = 10
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
    app_name: str = "sluice"
    planned_connections: int = 0

    def __repr__(self) -> str:
        return f"Options(driver={self.driver!r}, database={self.database!r}, max_pool_size={self.max_pool_size})"

    @property
    def queue_limit(self) -> int:
        """How many operations may wait before a turnstile refuses the next."""
        return self.max_pool_size * self.wait_queue_multiple
