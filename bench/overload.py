"""Open-loop overload: what is served when more arrives than can be, and how the rest is refused."""

from __future__ import annotations

from pathlib import Path

from bench import openloop
from bench.plan import TARGET_LEVEL, Plan
from bench.results import Workload
from bench.servers import Server, served
from bench.sides import PYMONGO, SLUICE
from bench.web import write_ids, wrk

WARM_UP = 1.0


def overload(plan: Plan, url: str, folder: Path) -> Workload:
    """0.5 to 3 times the capacity of the list route, which nothing coalesces, and of the point read; through nginx."""
    workload = Workload(
        [
            f"Capacity: what wrk gets at {TARGET_LEVEL} connections (a closed loop), measured first, per route and"
            " side. Servers as for the HTTP workloads, through nginx.",
            "Arrivals are a Poisson process; a latency counts from the scheduled time. The load is made by a process of"
            f" its own with up to {openloop.CONNECTIONS:,} connections; its lag says how late it sent, at p99.",
            "goodput: 2xx answers per second within the measured time. refused: 503 and 429.",
        ]
    )
    apps = [SLUICE] if plan.quick else [SLUICE, PYMONGO]
    with served(apps, url, folder, nginx=True) as servers:
        ids = write_ids(url, apps, folder)
        routes = {"list": ["/users?limit=20"], "read": [f"/users/{key}" for key in ids.read_text().split()]}
        for route, paths in routes.items():
            capacity = {server: _capacity(server, route, plan, ids) for server in servers}
            for load in plan.loads:
                for _ in range(min(2, plan.rounds)):
                    for server in servers:
                        rate = load * capacity[server]
                        order = openloop.Order(server.url("nginx"), paths, rate, plan.overload_seconds, WARM_UP)
                        row = workload.row(route=route, side=server.app.name, load=load)
                        row.rounds.append({**openloop.run(order), "capacity": capacity[server]})
                        server.settle()
    return workload


def _capacity(server: Server, route: str, plan: Plan, ids: Path) -> float:
    wrk(server.url("nginx"), route, TARGET_LEVEL, 1, ids)  # warms up
    return max(1.0, wrk(server.url("nginx"), route, TARGET_LEVEL, plan.target_seconds, ids)["rate"])
