"""Histograms that can be added up over workers and continued by a slot's next owner."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

# Seconds: from a queue that is empty to one that is at its limit.
BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


@dataclass(slots=True)
class Histogram:
    """Counts per bucket (the last one is above every bound) and the sum of all that was observed."""

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        """Raises `ValueError` for counts that don't belong to these bounds."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        if len(self.counts) != len(self.bounds) + 1:
            raise ValueError(f"{len(self.counts)} buckets for {len(self.bounds)} bounds")

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @classmethod
    def added(cls, histograms: Sequence[Histogram]) -> Histogram:
        """All that several with the same bounds, one at least, have counted."""
        counts = [sum(column) for column in zip(*(each.counts for each in histograms), strict=True)]
        return cls(histograms[0].bounds, counts, sum((each.total for each in histograms), start=0.0))

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """None before the first observation."""
        count = self.count
        return self.total / count if count else None

    def quantile(self, share: float) -> float | None:
        """The value below which `share` (0 to 1) of the observations lie; None before the first.

        Linear within a bucket, as Prometheus' `histogram_quantile`; above the last bound, that bound.
        """
        rank = share * self.count
        if self.count == 0:
            return None
        seen = 0
        for number, (bound, count) in enumerate(zip(self.bounds, self.counts, strict=False)):
            if count and seen + count >= rank:
                lower = self.bounds[number - 1] if number else 0.0
                return lower + (bound - lower) * (rank - seen) / count
            seen += count
        return self.bounds[-1]
