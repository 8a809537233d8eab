"""Ask a running Prometheus every question that the dashboards and alerts ask."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import httpx

from grafana.checks.sources import Expression


def unanswered(address: str, expressions: Sequence[Expression], patience: float = 90.0) -> dict[str, str]:
    """The expressions, by place, that return no number from the Prometheus at `address`, and what they return.

    Asks again for `patience` seconds: the slowest rules are evaluated once a minute.
    """
    end = time.monotonic() + patience
    with httpx.Client(base_url=address, timeout=10) as client:
        while True:
            answers = {expression: _problem(client, expression.filled) for expression in expressions}
            missing = {f"{e.place}: {e.filled}": problem for e, problem in answers.items() if problem}
            if not missing or time.monotonic() > end:
                return missing
            expressions = [expression for expression, problem in answers.items() if problem]
            time.sleep(5)


def _problem(client: httpx.Client, expression: str) -> str | None:
    answer = client.post("/api/v1/query", data={"query": expression}).json()
    if answer["status"] != "success":
        return str(answer["error"])
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    if not values:
        return "nothing"
    return None if any(math.isfinite(value) for value in values) else "no number"
