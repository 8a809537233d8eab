"""What came of a drill, and whether that is within its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from drill.drills import Drill
from drill.figures import Figures
from drill.ledger import Audit
from drill.load import Series
from drill.truth import Witness

UNKNOWN = Audit(0, [], [], 0)


@dataclass(frozen=True)
class Outcome:
    """`error`: why the drill itself failed."""

    drill: Drill
    driver: str
    figures: Figures
    audit: Audit | None
    """None: it didn't come to that."""
    wrong: list[str]
    causes: list[str]
    notes: dict[str, float]
    witness: Witness
    series: Series = field(default_factory=dict)
    error: str | None = None

    def broken(self) -> list[str]:
        """What may never be, whatever fails: only counts, so that a slow machine changes nothing."""
        audit = self.audit or UNKNOWN
        server_errors = self.figures.failed.get("500", 0)
        bad = [
            (len(audit.lost), "acknowledged writes lost", audit.lost),
            (len(self.wrong), "wrong answers", self.wrong),
            (len(audit.duplicates), "duplicates", audit.duplicates),
            (len(audit.invented), "invented writes", audit.invented),
            (server_errors, "requests answered 500", []),
            (len(self.witness.shrunken), "counters that fell", sorted(self.witness.shrunken)),
        ]
        found = [f"{count} {what}{_examples(which)}" for count, what, which in bad if count]
        allowed = self.drill.bounds.failed
        if allowed is not None and self.figures.failures > allowed:
            found.append(f"{self.figures.failures} requests failed, allowed are {allowed}{_examples(self.causes)}")
        unseen = [
            (self.witness.live_failures, self.witness.live_asked, "times without liveness"),
            (self.witness.missed, self.witness.looks, "times without metrics"),
        ]
        for count, asked, what in unseen:
            most = asked if self.drill.bounds.unseen is None else self.drill.bounds.unseen
            if count > most or not asked:
                found.append(f"{count} of {asked} {what}, allowed are {most}")
        if self.audit is None:
            found.append("not audited")
        if self.error:
            found.append(self.error)
        return found

    def late(self) -> list[str]:
        """Which times were missed, and what else depends on how fast a machine is."""
        bounds, figures = self.drill.bounds, self.figures
        times = [
            (figures.absent_reads, bounds.absent_reads, "without a successful read"),
            (figures.absent_writes, bounds.absent_writes, "without a successful write"),
            (figures.recovered, bounds.recovered, "until all was well"),
            (self.witness.slowest_live, bounds.live, "for liveness"),
        ]
        found = [f"{value:.2g} s {what}, allowed are {limit:g}" for value, limit, what in times if value > limit]
        counted = [(self.notes.get(what, math.inf), limit, what) for what, limit in bounds.counted.items()]
        found += [f"{number:.3g} {what}, allowed are {limit:g}" for number, limit, what in counted if number > limit]
        counted = [(self.notes.get(what, 0.0), limit, what) for what, limit in bounds.least.items()]
        found += [f"{number:.3g} {what}, needed are {limit:g}" for number, limit, what in counted if number < limit]
        for what, most in bounds.flat.items():
            first, last = _thirds(self.series.get(what, []))
            if not last <= most * first:
                found.append(f"{what}: {last:.3g} in the last third, {first:.3g} in the first")
        if alerts := {name: state for name, state in self.witness.alerts.items() if name not in self.drill.alerts}:
            found.append(f"alerts that aren't so: {', '.join(f'{name} ({state})' for name, state in alerts.items())}")
        if self.witness.alerts_missed or not self.witness.alert_looks:
            found.append(f"{self.witness.alerts_missed} of {self.witness.alert_looks} times without Prometheus")
        if self.witness.holes:
            found.append(f"{len(self.witness.holes)} figures of members with a hole{_examples(self.witness.holes)}")
        return found

    def as_json(self) -> dict[str, Any]:
        """For machines, and for comparisons."""
        return {
            "drill": self.drill.name,
            "driver": self.driver,
            **asdict(self.figures),
            "audited": self.audit is not None,
            "acknowledged": self.audit and self.audit.acknowledged,
            "lost": self.audit and self.audit.lost,
            "wrong": self.wrong,
            "duplicates": self.audit and self.audit.duplicates,
            "invented": self.audit and self.audit.invented,
            "happened_without_acknowledgement": self.audit and self.audit.unacknowledged,
            "slowest_liveness": self.witness.slowest_live,
            "liveness_failures": [self.witness.live_failures, self.witness.live_asked],
            "alerts": self.witness.alerts,
            "counters_that_fell": sorted(self.witness.shrunken),
            "figures_of_members_with_a_hole": sorted(self.witness.holes),
            "metrics_missed": [self.witness.missed, self.witness.looks],
            "prometheus_missed": [self.witness.alerts_missed, self.witness.alert_looks],
            "causes": self.causes,
            "notes": self.notes,
            "series": self.series,
            "broken": self.broken(),
            "late": self.late(),
        }


def _thirds(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The medians of the first and of the last third; no numbers where there are none."""
    values = [value for _, value in points]
    if len(values) < 3:
        return math.nan, math.nan
    return median(values[: len(values) // 3]), median(values[-(len(values) // 3) :])


def _examples(which: list[str] | set[str]) -> str:
    return f": {'; '.join(sorted(which)[:3])}" if which else ""
