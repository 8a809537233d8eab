"""nginx: the way in."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.panels import UP_OR_DOWN, board, graph, number, variable
from grafana.promql import or_zero, rate

# Not called instance: links between dashboards carry variables along, and the API's instances are others.
NGINX = variable("nginx", "nginx", "nginx_up", "instance")
ONE = 'instance=~"$nginx"'

NOW = (
    number(
        "nginx", "Whether nginx answers its exporter.", (f"min(nginx_up{{{ONE}}})", "nginx"), unit="none", base="red",
        steps=(("green", 1),), mappings=(UP_OR_DOWN,), width=6,
    ),
    number(
        "Requests", "Requests per second, its own answers and health checks included.",
        (rate("nginx_http_requests_total", ONE), "requests"), unit="reqps", width=6,
    ),
    number(
        "Open connections", "Clients that are connected.", (f"sum(nginx_connections_active{{{ONE}}})", "open"),
        unit="none", steps=(("orange", 3000), ("red", 4000)), width=6,
    ),
    number(
        "Dropped", "Connections per second that were accepted and not handled: worker_connections is too low.",
        (
            f"{rate('nginx_connections_accepted', ONE)} - {rate('nginx_connections_handled', ONE)}",
            "dropped",
        ),
        unit="cps", steps=(("red", 0.001),), width=6,
    ),
)  # fmt: skip

TRAFFIC = (
    graph(
        "Requests: nginx and the API", "Per second. nginx above the API: its own answers, health checks, /metrics, or"
        " requests that reached no worker.",
        (rate("nginx_http_requests_total", ONE), "nginx"), (or_zero(rate("http_requests_total")), "API"), unit="reqps",
        width=12,
    ),
    graph(
        "Connections by state", "Reading: a request comes in; writing: an answer is made or sent; waiting: kept alive.",
        (f"sum(nginx_connections_reading{{{ONE}}})", "reading"),
        (f"sum(nginx_connections_writing{{{ONE}}})", "writing"),
        (f"sum(nginx_connections_waiting{{{ONE}}})", "waiting"), unit="none", stacked=True, width=12,
    ),
    graph(
        "New connections", "Accepted and handled per second. Many, compared with requests: clients don't keep them.",
        (rate("nginx_connections_accepted", ONE), "accepted"), (rate("nginx_connections_handled", ONE), "handled"),
        unit="cps", width=12,
    ),
    graph(
        "Requests per connection", "How often clients use a connection before they open a new one.",
        (
            or_zero(
                f"{rate('nginx_http_requests_total', ONE)} / ({rate('nginx_connections_accepted', ONE)} > 0)"
            ),
            "requests",
        ),
        unit="none", width=12,
    ),
)  # fmt: skip


def build() -> dashboard.Dashboard:
    return board(
        "sluice-nginx", "Sluice / nginx", "Requests and connections at the reverse proxy.", (NGINX,),
        (("Now", NOW), ("Traffic", TRAFFIC)),
    )  # fmt: skip
