"""Histograms of durations that can be added up over workers and continued by a slot's next owner."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

# Seconds: from a queue that is empty to one that is at its limit.
BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


@dataclass(slots=True)
class Histogram:
    """Counts per bucket (the last one is above every bound) and the sum of all that was observed, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: Histogram) -> None:
        """Add what another histogram has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> Histogram:
        return Histogram(self.counts.copy(), self.total)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Seconds below which `share` (0 to 1) of the observations lie; None before the first.

        Linear within a bucket, as Prometheus' `histogram_quantile`; above the last bound, that bound.
        """
        rank = share * self.count
        if self.count == 0:
            return None
        seen = 0
        for number, (bound, count) in enumerate(zip(BOUNDS, self.counts, strict=False)):
            if count and seen + count >= rank:
                lower = BOUNDS[number - 1] if number else 0.0
                return lower + (bound - lower) * (rank - seen) / count
            seen += count
        return BOUNDS[-1]
