"""How much is measured: the full run, and the quick form that shows the same with less certainty."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`rounds`: how often the sides take turns. `seconds`: of one measurement; `target_seconds`: at the level that the
    targets name, over HTTP; `overload_seconds`: at one load. Sizes and levels are what is stepped through."""

    quick: bool = False
    rounds: int = 3
    seconds: float = 1.0
    target_seconds: float = 2.0
    overload_seconds: float = 3.0
    fairness_seconds: float = 3.0
    callers: tuple[int, ...] = (1, 16, 64, 256, 1000)
    connections: tuple[int, ...] = (1, 16, 64, 256)
    pool_sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 100, 200)
    loads: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)

    def shortened(self, seconds: float) -> Plan:
        """The same with every measurement this short."""
        return replace(
            self, seconds=seconds, target_seconds=seconds, overload_seconds=seconds, fairness_seconds=seconds
        )


FULL = Plan()
QUICK = Plan(
    quick=True,
    rounds=1,
    seconds=0.5,
    target_seconds=1.0,
    overload_seconds=1.0,
    fairness_seconds=1.0,
    callers=(1, 64),
    connections=(64,),
    pool_sizes=(2, 16, 100),
    loads=(1.0, 3.0),
)
TARGET_LEVEL = 64
"""Callers or connections at which the targets are set."""
