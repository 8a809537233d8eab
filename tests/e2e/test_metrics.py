"""Prometheus's side: hidden from nginx, complete and well-formed past it."""

from __future__ import annotations

import http.client
import subprocess
from typing import Any

import httpx
import pytest
from stack import Stack, until

from sluice import metrics


@pytest.mark.parametrize(
    "path",
    [
        "/metrics", "//metrics", "/metrics/", "/metrics//", "/%6detrics", "/./metrics", "/users/../metrics",
        "/metrics?x=1", "/metrics/x", "/pool/control", "/pool/control/", "/pool//control", "/pool/%63ontrol",
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
    only_with_a_budget = {metrics.BUDGET[0]}
    assert metrics.names() - found == only_with_a_budget
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
