"""Prometheus's side: hidden from nginx, complete and well-formed past it."""

from __future__ import annotations

import http.client
import subprocess
from typing import Any

import httpx
import pytest
from traffic import traffic
from whole_stack import Stack, until

from grafana.checks.live import unanswered
from grafana.checks.sources import Expression, live_expressions
from sluice import statistics


@pytest.mark.parametrize(
    "path",
    [
        "/metrics", "//metrics", "/metrics/", "/metrics//", "/%6detrics", "/./metrics", "/users/../metrics",
        "/metrics?x=1", "/metrics/x", "/users/..%2fmetrics", "/users/%2e%2e/metrics", "/%2fmetrics", "/metrics%0a",
        "/metrics%0d", "/metrics;x", "/metrics%3Bx", "/metrics%20", "/metrics#x", "/x#/../metrics", "/%256detrics",
        "/METRICS", "/metrics%3Fx", "http://localhost/metrics", "http://x/users/../metrics", "HTTP://x//%6detrics",
        "/pool/control", "/pool/control/", "/pool//control", "/pool/%63ontrol",
    ],
)  # fmt: skip
def test_operators_paths_are_not_reachable_through_nginx(stack: Stack, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.layout.http.number, timeout=10)
    connection.request("GET", path)  # as it is, which no better client would send
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 404
    assert b"db_client" not in body
    assert answer.headers["content-type"] == "application/problem+json"


LINT = 3
"""promtool's exit code for what it can read but would have named otherwise."""


def test_promtool_accepts_everything_but_opentelemetrys_own_name(stack: Stack, user_ids: list[str]) -> None:
    stack.http.get(f"/users/{user_ids[0]}")
    exported = httpx.get(f"{stack.api_url}/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=exported, capture_output=True, text=True)
    complaints = (checked.stdout + checked.stderr).splitlines()
    assert checked.returncode in (0, LINT), complaints
    assert [line for line in complaints if not line.startswith("db_client_connection_count ")] == []


def test_every_documented_metric_is_exported(stack: Stack) -> None:
    exported = httpx.get(f"{stack.api_url}/metrics").text
    found = {line.split()[2] for line in exported.splitlines() if line.startswith("# TYPE")}
    assert statistics.metric_names() <= found
    assert {"http_requests_total", "http_request_duration_seconds"} <= found


def ask(stack: Stack, expression: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{stack.prometheus_url}/api/v1/query", params={"query": expression}).json()
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def test_prometheus_scrapes_every_target(stack: Stack) -> None:
    def all_up() -> bool:
        return {row["metric"]["job"]: row["value"][1] for row in ask(stack, "up")} == dict.fromkeys(
            ("api", "nginx", "prometheus"), "1"
        )

    until(all_up)
    until(lambda: ask(stack, "sum(db_client_connection_count) > 0") != [])
    until(lambda: ask(stack, "nginx_connections_active > 0") != [])
    until(lambda: len(ask(stack, "max by (member) (mongodb_member_up == 1)")) == 3)


@pytest.mark.timeout(240)
def test_no_panel_variable_or_alert_is_without_an_answer(stack: Stack) -> None:
    with traffic(stack.url):
        assert unanswered(stack.prometheus_url, live_expressions(), patience=150) == {}


@pytest.mark.parametrize("expression", ["sluice_no_such_metric", "sluice_no_such_metric or on () vector(0)"])
def test_a_metric_that_nothing_exports_is_noticed(stack: Stack, expression: str) -> None:
    found = unanswered(stack.prometheus_url, [Expression("a panel", expression)], patience=0)
    assert found == {f"a panel: {expression}": "something without sluice_no_such_metric, which nothing exports"}


def test_an_expression_that_returns_nothing_is_noticed(stack: Stack) -> None:
    expression = 'up{job="no such job"}'
    found = unanswered(stack.prometheus_url, [Expression("a panel", expression)], patience=0)
    assert found == {f"a panel: {expression}": "nothing"}
