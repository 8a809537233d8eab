"""Overview: the four golden signals, and the pools and workers in one glance."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.limits import threshold
from grafana.panels import CONTAINERS, WORKERS, board, graph, number
from grafana.promql import WINDOW, WORKER, or_zero, quantile, rate, top

INSTANCE = 'instance=~"$instance"'
REQUESTS = "http_requests_total"
DURATION = "http_request_duration_seconds"
OPERATIONS = "db_client_operation_duration_seconds"
FAILURES = "db_client_operation_errors_total"
ONE = "worker {{worker}} · {{instance}}"


def _share(status: str) -> str:
    failed = or_zero(rate(REQUESTS, f'{INSTANCE},status="{status}"'))
    return or_zero(f"({failed}) / ({rate(REQUESTS, INSTANCE)} > 0)")


NOW = (
    number(
        "Traffic", "Requests per second that the API has answered, health checks and /metrics left out.",
        (or_zero(rate(REQUESTS, INSTANCE)), "requests"), unit="reqps",
    ),
    number(
        "Errors", "Share of requests that ended in 5xx. Red where it would use up the 30 days' budget in two days.",
        (_share("5xx"), "5xx"), unit="percentunit", steps=(("orange", 0.001), ("red", 0.0144)),
    ),
    number(
        "Latency (p99)", "99 of 100 requests are answered within this time. The objective is 0.25 s.",
        (quantile(0.99, DURATION, INSTANCE), "p99"), unit="s", steps=(("orange", 0.25), ("red", 1)),
    ),
    number(
        "Pool utilization", "Of the fullest pool: operations that hold a place, of those that it lets in at once.",
        (f"max(sluice:pool_utilization:ratio{{{WORKER}}})", "fullest pool"), unit="percentunit",
        steps=(("orange", threshold("PoolNearlyFull")), ("red", threshold("PoolSaturated"))),
    ),
    number(
        "Waiting", "Operations that wait for a connection, in all pools.",
        (f"sum(db_client_connection_pending_requests{{{WORKER}}})", "waiting"), unit="none",
        steps=(("orange", 1), ("red", 100)),
    ),
    number(
        "Workers ready", "Workers that can serve.",
        (f"sum(sluice_worker_ready{{{WORKER}}})", "ready"), unit="none", base="red", steps=(("green", 1),),
    ),
    number(
        "Primary", "Whether a member says that it is the primary.",
        ("clamp_max(sluice:primaries:count, 1)", "primary"), unit="none", base="red", steps=(("green", 1),),
        mappings=(dashboard.ValueMap(options={
            "0": dashboard.ValueMappingResult(text="none", color="red"),
            "1": dashboard.ValueMappingResult(text="present", color="green"),
        }),),
    ),
    number(
        "Alerts", "Alerts that fire now; Prometheus lists them at /alerts, docs/runbook.md says what to do.",
        (or_zero('count(ALERTS{alertstate="firing"})'), "firing"), unit="none", steps=(("red", 1),),
    ),
)  # fmt: skip

TRAFFIC = (
    graph(
        "Requests by route", "Requests per second, the ten busiest routes.",
        (or_zero(top(rate(REQUESTS, INSTANCE, "method, handler")), "handler"), "{{method}} {{handler}}"),
        unit="reqps", stacked=True, width=12,
    ),
    graph(
        "Requests by status", "Requests per second by class of status.",
        (or_zero(rate(REQUESTS, INSTANCE, "status"), "status"), "{{status}}"), unit="reqps", stacked=True, width=12,
    ),
)  # fmt: skip

ERRORS = (
    graph(
        "Error rate", "Share of requests by kind of failure. 4xx are the callers' own, 5xx are ours: 0.1% are allowed.",
        (_share("5xx"), "5xx"), (_share("4xx"), "4xx"), unit="percentunit", steps=(("red", 0.001),),
    ),
    graph(
        "Failed database operations", "Operations per second that ended with an error, by its class.",
        (
            or_zero(top(rate(FAILURES, WORKER, "db_operation_name, error_type")), "error_type"),
            "{{db_operation_name}} {{error_type}}",
        ),
        unit="ops",
    ),
    graph(
        "Burn rate", "How many times faster than allowed the 30 days' budget is used. Above 14.4, in both windows of a"
        " kind, ErrorBudgetBurnsFast or LatencyBudgetBurnsFast wakes somebody.",
        ("sluice:http_errors:ratio_rate5m / 0.001", "errors, 5 min"),
        ("sluice:http_errors:ratio_rate1h / 0.001", "errors, 1 h"),
        ("sluice:http_slow:ratio_rate5m / 0.01", "slow, 5 min"),
        ("sluice:http_slow:ratio_rate1h / 0.01", "slow, 1 h"),
        unit="none", steps=(("orange", 1), ("red", 14.4)),
    ),
)  # fmt: skip

LATENCY = (
    graph(
        "Request latency", "Time until the answer began: half, 95 and 99 of 100 requests are faster.",
        (quantile(0.5, DURATION, INSTANCE), "p50"), (quantile(0.95, DURATION, INSTANCE), "p95"),
        (quantile(0.99, DURATION, INSTANCE), "p99"), unit="s", steps=(("red", 0.25),),
    ),
    graph(
        "Latency by route (p95)", "95 of 100 requests to the route are faster.",
        (top(quantile(0.95, DURATION, INSTANCE, "method, handler")), "{{method}} {{handler}}"), unit="s",
    ),
    graph(
        "Query execution time (p95)", "95 of 100 operations are faster, their wait for a connection included.",
        (
            top(quantile(0.95, OPERATIONS, WORKER, "db_collection_name, db_operation_name")),
            "{{db_collection_name}}.{{db_operation_name}}",
        ),
        unit="s",
    ),
)  # fmt: skip

SATURATION = (
    graph(
        "Pool utilization", "Of each worker's fullest pool. A queue forms from 80% on.",
        (f"max by (instance, worker) (sluice:pool_utilization:ratio{{{WORKER}}})", ONE), unit="percentunit", maximum=1,
        steps=(("orange", threshold("PoolNearlyFull")), ("red", threshold("PoolSaturated"))),
    ),
    graph(
        "Waiting for a connection", "Operations that wait, by worker.",
        (f"sum by (instance, worker) (db_client_connection_pending_requests{{{WORKER}}})", ONE), unit="none",
        stacked=True,
    ),
    graph(
        "Event-loop lag", "The event loop's worst delay in a second: added to every request of the worker.",
        (f"max by (instance, worker) (sluice_worker_event_loop_lag_seconds{{{WORKER}}})", ONE), unit="s",
        steps=(("red", threshold("EventLoopLag")),),
    ),
    graph(
        "CPU", "CPU cores that each worker uses. One worker can't use more than one.",
        (f"rate(sluice_worker_cpu_seconds_total{{{WORKER}}}[{WINDOW}])", ONE), unit="percentunit", maximum=1,
        steps=(("red", 0.9),),
    ),
    graph(
        "Memory", "Resident memory of each worker. It should level off.",
        (f"sluice_worker_memory_bytes{{{WORKER}}}", ONE), unit="bytes", stacked=True,
    ),
    graph(
        "Worker starts", "Workers started in the last 15 minutes, by slot: crashes, and MAX_REQUESTS replacing them.",
        (f"sluice:worker_starts:increase15m{{{WORKER}}}", ONE), unit="none",
        steps=(("red", threshold("WorkerRestarts")),),
    ),
)  # fmt: skip


def build() -> dashboard.Dashboard:
    return board(
        "sluice-overview",
        "Sluice / Overview",
        "Traffic, errors, latency and saturation of the service.",
        (CONTAINERS, WORKERS),
        (("Now", NOW), ("Traffic", TRAFFIC), ("Errors", ERRORS), ("Latency", LATENCY), ("Saturation", SATURATION)),
    )
