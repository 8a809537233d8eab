"""What Sluice's knowledge of itself costs."""

from __future__ import annotations

from pathlib import Path

from bench.plan import TARGET_LEVEL, Plan
from bench.results import Workload
from bench.servers import served
from bench.sides import CONTEXTLESS, SLUICE, UNMEASURED
from bench.web import load, write_ids


def instrumentation(plan: Plan, url: str, folder: Path) -> Workload:
    """The service with and without metrics and logs, and without what each answer says of itself; directly."""
    workload = Workload(
        [
            "on: Sluice as it comes. off: the same application without HTTP metrics, times of operations and logs."
            " bare: also without the request's id, its trace and Server-Timing. The pools count in all of them.",
            f"wrk at {TARGET_LEVEL} connections, directly at the worker, which each has to itself in turn.",
        ]
    )
    sides = {"on": SLUICE, "off": UNMEASURED, "bare": CONTEXTLESS}
    apps = list(sides.values())
    with served(apps, url, folder) as servers:
        ids = write_ids(url, apps, folder)
        for server in servers:
            load(server, "direct", "read", TARGET_LEVEL, 1, ids)
        for kind in ("read", "list"):
            for _ in range(plan.rounds + 2 * (not plan.quick)):  # a small difference needs more rounds
                for side, server in zip(sides, servers, strict=True):
                    figures = load(server, "direct", kind, TARGET_LEVEL, plan.target_seconds, ids)
                    workload.row(kind=kind, side=side).rounds.append(figures)
    return workload
