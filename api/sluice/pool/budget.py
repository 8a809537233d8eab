"""The connection arithmetic: how many connections each member gets from a configuration."""

from __future__ import annotations

from dataclasses import dataclass

MONITORS = 2
"""Connections that each client keeps to each member, besides its pool."""
OBSERVER = MONITORS + 1
"""Connections to each member of the one client per container that asks for the members' own view."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a configuration may open, per member."""

    containers: int
    workers: int
    pool: int

    @property
    def connections(self) -> int:
        return self.containers * (self.workers * (self.pool + MONITORS) + OBSERVER)

    def __str__(self) -> str:
        return (
            f"{self.containers} containers × ({self.workers} workers × ({self.pool} pool + {MONITORS} monitors)"
            f" + {OBSERVER} observer) = {self.connections} connections to each member"
        )


def largest_pool(budget: int, containers: int, workers: int) -> int:
    """The largest pool that keeps `containers × workers` within `budget` connections to each member; may be < 1."""
    return (budget // containers - OBSERVER) // workers - MONITORS
