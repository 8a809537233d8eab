"""Ask a running Prometheus every question that the dashboards and alerts ask."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import httpx

from grafana.checks.promql import metrics
from grafana.checks.sources import Expression

ENDINGS = {"counter": ("", "_total"), "histogram": ("_bucket", "_count", "_sum"), "summary": ("", "_count", "_sum")}
"""What is added to a metric's declared name, by its type; formats differ in whether `_total` belongs to that."""


def unanswered(address: str, expressions: Sequence[Expression], patience: float = 90.0) -> dict[str, str]:
    """The expressions, by place, that return no number from the Prometheus at `address`, and what they return instead.

    Also those with a metric that nothing exports, even where they return something without it. Asks again for
    `patience` seconds: the slowest rules are evaluated once a minute.
    """
    end = time.monotonic() + patience
    with httpx.Client(base_url=address, timeout=10) as client:
        while True:
            known = _known(client)
            answers = {expression: _problem(client, expression.filled, known) for expression in expressions}
            missing = {f"{e.place}: {e.filled}": problem for e, problem in answers.items() if problem}
            if not missing or time.monotonic() > end:
                return missing
            expressions = [expression for expression, problem in answers.items() if problem]
            time.sleep(5)


def _known(client: httpx.Client) -> set[str]:
    """The metrics that there are: those with series, and those that a target or a rule declares to come."""
    there = client.get("/api/v1/label/__name__/values").json()["data"]
    declared = client.get("/api/v1/metadata").json()["data"]
    exported = {
        name + ending
        for name, targets in declared.items()
        for target in targets
        for ending in ENDINGS.get(target["type"], ("",))
    }
    groups = client.get("/api/v1/rules", params={"type": "record"}).json()["data"]["groups"]
    recorded = {rule["name"] for group in groups for rule in group["rules"]}
    return {"ALERTS", *there, *exported, *recorded}


def _problem(client: httpx.Client, expression: str, known: set[str]) -> str | None:
    if missing := sorted(metrics(expression) - known):
        return f"something without {', '.join(missing)}, which nothing exports"
    answer = client.post("/api/v1/query", data={"query": expression}).json()
    if answer["status"] != "success":
        return str(answer["error"])
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    if not values:
        return "nothing"
    return None if any(math.isfinite(value) for value in values) else "no number"
