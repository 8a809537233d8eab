"""What a load's records say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from drill.load import Kind, Load, Record

SLOW = 1.0
"""Seconds from which an answer counts as not recovered yet."""


@dataclass(frozen=True)
class Figures:
    """Times are in seconds; an absence is the longest time without a success, of reads and of writes."""

    requests: int
    failed: dict[str, int]
    """By status, those of a drill's own requests too; `no answer` where there was none."""
    absent_reads: float
    absent_writes: float
    slowest: float
    recovered: float
    """From the beginning of the trouble until nothing failed, or took over a second, any more."""

    @property
    def failures(self) -> int:
        return sum(self.failed.values())


def figures(load: Load, trouble: float) -> Figures:
    """Of a load that is over; `trouble`: when it began (monotonic seconds)."""
    records = load.records
    bad = [record for record in records if not record.good]
    others = load.others.elements()
    late = [record.ended for record in records if (not record.good or record.seconds > SLOW) and record.ended > trouble]
    return Figures(
        requests=len(records),
        failed=dict(Counter(str(status or "no answer") for status in [*(record.status for record in bad), *others])),
        absent_reads=_absence(records, "read", load.started, load.ended),
        absent_writes=_absence(records, "write", load.started, load.ended),
        slowest=max((record.seconds for record in records), default=0.0),
        recovered=max(late, default=trouble) - trouble,
    )


def _absence(records: Sequence[Record], kind: Kind, start: float, end: float) -> float:
    times = sorted(record.ended for record in records if record.kind == kind and record.good)
    return max((after - before for before, after in zip([start, *times], [*times, end], strict=True)), default=0.0)
