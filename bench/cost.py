"""What Sluice's knowledge of itself costs."""

from __future__ import annotations

from pathlib import Path

from bench.plan import TARGET_LEVEL, Plan
from bench.results import Workload
from bench.servers import served
from bench.sides import SLUICE, UNMEASURED
from bench.web import load, write_ids


def instrumentation(plan: Plan, url: str, folder: Path) -> Workload:
    """The service with and without metrics, request context, access log and operation times; directly."""
    workload = Workload(
        [
            "on: Sluice as it comes. off: the same application without the middleware for HTTP metrics and for the"
            " request's context (ids, timings, access log), and without timed operations. The pools count in both.",
            f"wrk at {TARGET_LEVEL} connections, directly at the worker, which both have to themselves in turn.",
        ]
    )
    apps = [SLUICE, UNMEASURED]
    with served(apps, url, folder) as servers:
        ids = write_ids(url, apps, folder)
        for server in servers:
            load(server, "direct", "read", TARGET_LEVEL, 1, ids)
        for kind in ("read", "list"):
            for _ in range(plan.rounds + 2 * (not plan.quick)):  # a small difference needs more rounds
                for server in servers:
                    figures = load(server, "direct", kind, TARGET_LEVEL, plan.target_seconds, ids)
                    workload.row(kind=kind, side="on" if server.app is SLUICE else "off").rounds.append(figures)
    return workload
