"""Connection pools: what each worker's pool to each member does."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from grafana.limits import threshold
from grafana.panels import CONTAINERS, POOL_MEMBERS, WORKERS, board, graph, heat, number
from grafana.promql import POOL, WORKER, buckets, or_zero, quantile, rate

USED = f'db_client_connection_count{{{POOL},state="used"}}'
IDLE = f'db_client_connection_count{{{POOL},state="idle"}}'
WAITING = f"db_client_connection_pending_requests{{{POOL}}}"
OLDEST = f"db_client_connection_oldest_wait_seconds{{{POOL}}}"
WAIT_TIME = "db_client_connection_wait_time_seconds"
USE_TIME = "db_client_connection_use_time_seconds"
CREATE_TIME = "db_client_connection_create_time_seconds"
FULL = (("orange", threshold("PoolNearlyFull")), ("red", threshold("PoolSaturated")))
WAIT = (("red", threshold("PoolWaitsLong")),)
PLACES = f"db_client_connection_slots{{{POOL}}}"
EACH_MEMBER, MEMBER = "server_address", "{{server_address}}"
EACH_WORKER, ONE = "instance, worker", "worker {{worker}} · {{instance}}"
BUDGETED = 'member=~"$member"'

NOW = (
    number("Used", "Connections that are checked out.", (f"sum({USED})", "used"), unit="none"),
    number("Idle", "Connections that are open and free.", (f"sum({IDLE})", "idle"), unit="none"),
    number(
        "Waiting", "Operations that wait for a connection.", (f"sum({WAITING})", "waiting"), unit="none",
        steps=(("orange", 1), ("red", 100)),
    ),
    number(
        "Oldest waiter", "How long the longest waiter has waited. A rise means that the pool can't keep up.",
        (f"max({OLDEST})", "oldest"), unit="s", steps=WAIT,
    ),
    number(
        "Utilization", "Of the fullest pool.", (f"max(sluice:pool_utilization:ratio{{{POOL}}})", "fullest"),
        unit="percentunit", steps=FULL,
    ),
    number(
        "Queue", "Of the fullest queue: waiting operations, of those that may wait before the next is refused.",
        (f"max({WAITING} / (db_client_connection_queue_limit{{{POOL}}} > 0))", "fullest"), unit="percentunit",
        steps=(("orange", 0.5), ("red", 0.9)),
    ),
    number(
        "Timeouts", "Operations per second that timed out waiting for a connection.",
        (rate("db_client_connection_timeouts_total", POOL), "timeouts"), unit="ops", steps=(("red", 0.001),),
    ),
    number(
        "Refusals", "Operations per second that were refused at a full queue.",
        (rate("db_client_connection_refused_total", POOL), "refusals"), unit="ops", steps=(("red", 0.001),),
    ),
)  # fmt: skip

MEMBERS = (
    graph(
        "Used and idle, by member", "Open connections of all workers.",
        (f"sum by ({EACH_MEMBER}) ({USED})", f"used · {MEMBER}"),
        (f"sum by ({EACH_MEMBER}) ({IDLE})", f"idle · {MEMBER}"), unit="none",
    ),
    graph(
        "Waiting, by member", "Operations that wait for a connection. With Motor they wait before all members: *.",
        (f"sum by ({EACH_MEMBER}) ({WAITING})", MEMBER), unit="none", stacked=True,
    ),
    graph(
        "Oldest waiter, by member", "Callers get 503 when this reaches WAIT_QUEUE_TIMEOUT_MS.",
        (f"max by ({EACH_MEMBER}) ({OLDEST})", MEMBER), unit="s", steps=WAIT,
    ),
)  # fmt: skip

WORKER_ROW = (
    graph(
        "Utilization, by worker", "Of the worker's fullest pool. One worker far above the others: uneven connections.",
        (f"max by ({EACH_WORKER}) (sluice:pool_utilization:ratio{{{POOL}}})", ONE), unit="percentunit", maximum=1,
        steps=FULL,
    ),
    graph(
        "Used, by worker", "Connections that are checked out.", (f"sum by ({EACH_WORKER}) ({USED})", ONE), unit="none",
        stacked=True,
    ),
    graph(
        "Idle, by worker", "Open and free connections; beyond MIN_POOL_SIZE they close after MAX_IDLE_TIME_MS.",
        (f"sum by ({EACH_WORKER}) ({IDLE})", ONE), unit="none", stacked=True,
    ),
    graph(
        "Waiting, by worker", "Operations that wait for a connection.", (f"sum by ({EACH_WORKER}) ({WAITING})", ONE),
        unit="none", stacked=True,
    ),
    graph(
        "Oldest waiter, by worker", "How long the longest waiter has waited.",
        (f"max by ({EACH_WORKER}) ({OLDEST})", ONE), unit="s", steps=WAIT,
    ),
    graph(
        "Could start now, by worker", "Operations that could start without waiting, in the worker's fullest pool.",
        (f"min by ({EACH_WORKER}) (db_client_connection_available{{{POOL}}} and {PLACES} > 0)", ONE), unit="none",
    ),
)  # fmt: skip

TIMES = (
    heat("Wait time", "Time to get a connection from the pool.", buckets(WAIT_TIME, POOL)),
    heat("Use time", "Time that a connection was checked out.", buckets(USE_TIME, POOL)),
    heat("Creation time", "Time to open a connection, its handshake included.", buckets(CREATE_TIME, POOL)),
    graph(
        "Wait time (p99)", "99 of 100 operations got their connection sooner.",
        (quantile(0.99, WAIT_TIME, POOL, EACH_MEMBER), MEMBER), unit="s", steps=WAIT,
    ),
    graph(
        "Use time (p99)", "99 of 100 operations gave their connection back sooner.",
        (quantile(0.99, USE_TIME, POOL, EACH_MEMBER), MEMBER), unit="s",
    ),
    graph(
        "Checkouts", "Connections taken from the pools per second.",
        (rate(f"{USE_TIME}_count", POOL, EACH_MEMBER), MEMBER), unit="ops", stacked=True,
    ),
)  # fmt: skip

CHURN = (
    graph(
        "Opened", "Connections opened per second. Many, all the time: MIN_POOL_SIZE or MAX_IDLE_TIME_MS is too low.",
        (rate("db_client_connection_created_total", POOL, EACH_MEMBER), MEMBER), unit="ops", stacked=True, width=6,
    ),
    graph(
        "Closed, by reason", "Connections closed per second. idle: unused; stale: the pool was cleared after an error;"
        " error: a connection broke; poolClosed: a worker stopped.",
        (or_zero(rate("db_client_connection_closed_total", POOL, "reason"), "reason"), "{{reason}}"), unit="ops",
        stacked=True, width=6,
    ),
    graph(
        "Opening, and failures to open", "Connections that are being opened, and failures to open one per second.",
        (f"sum by ({EACH_MEMBER}) (db_client_connection_connecting{{{POOL}}})", f"opening · {MEMBER}"),
        (rate("db_client_connection_create_failures_total", POOL, EACH_MEMBER), f"failures/s · {MEMBER}"),
        unit="none", width=6,
    ),
    graph(
        "Timeouts and refusals", "Operations per second that got no connection; their callers got 503.",
        (rate("db_client_connection_timeouts_total", POOL, EACH_MEMBER), f"timeouts · {MEMBER}"),
        (rate("db_client_connection_refused_total", POOL, EACH_MEMBER), f"refusals · {MEMBER}"), unit="ops", width=6,
    ),
)  # fmt: skip

BUDGET = (
    graph(
        "Connection budget", "What the running containers may open, of the smaller of the member's limit and"
        " CONNECTION_BUDGET. Every container counts, whatever is chosen above.",
        (
            f"sluice:member_connections:possible{{{BUDGETED}}} / sluice:member_connections:allowed{{{BUDGETED}}}",
            "{{member}}",
        ),
        unit="percentunit", maximum=1, steps=(("red", threshold("ConnectionBudgetExceeded")),),
    ),
    graph(
        "Possible, allowed, open", "Connections to each member: all pools full, the limit, and everybody's now.",
        (f"sluice:member_connections:possible{{{BUDGETED}}}", "possible · {{member}}"),
        (f"sluice:member_connections:allowed{{{BUDGETED}}}", "allowed · {{member}}"),
        (f"max by (member) (mongodb_member_connections_current{{{BUDGETED}}})", "open · {{member}}"), unit="none",
    ),
    graph(
        "Configured", "Connections to each member that the configuration plans; CONNECTION_BUDGET (0: not set).",
        ("max(sluice_connections_configured)", "configured"),
        (or_zero("min(sluice_connection_budget)"), "CONNECTION_BUDGET"), unit="none",
    ),
)  # fmt: skip

KIND = "kind, db_collection_name"
KIND_LEGEND = "{{kind}} {{db_collection_name}}"
COALESCING = (
    graph(
        "Asked for and sent", "Operations that callers asked for per second, and what was really sent for them.",
        (or_zero(rate("sluice_coalescing_operations_total", WORKER, KIND), "kind"), f"asked for · {KIND_LEGEND}"),
        (or_zero(rate("sluice_coalescing_batch_size_count", WORKER, KIND), "kind"), f"sent · {KIND_LEGEND}"),
        unit="ops",
    ),
    graph(
        "Batch size", "Operations per batch on average: how many times less work the database has.",
        (
            or_zero(
                f"{rate('sluice_coalescing_batch_size_sum', WORKER, KIND)}"
                f" / ({rate('sluice_coalescing_batch_size_count', WORKER, KIND)} > 0)",
                "kind",
            ),
            KIND_LEGEND,
        ),
        unit="none",
    ),
    graph(
        "Waiting and refused", "Operations that wait for a batch to leave, and refusals per second.",
        (
            or_zero(f"sum by ({KIND}) (sluice_coalescing_waiting{{{WORKER}}})", "kind"),
            f"waiting · {KIND_LEGEND}",
        ),
        (or_zero(rate("sluice_coalescing_refused_total", WORKER, KIND), "kind"), f"refused/s · {KIND_LEGEND}"),
        unit="none",
    ),
)  # fmt: skip


def build() -> dashboard.Dashboard:
    return board(
        "sluice-pools",
        "Sluice / Connection pools",
        "Every worker's pool to every member: used, idle, waiting, times, churn, limits.",
        (CONTAINERS, WORKERS, POOL_MEMBERS),
        (
            ("Now", NOW),
            ("By member", MEMBERS),
            ("By worker", WORKER_ROW),
            ("Times", TIMES),
            ("Opened, closed, refused", CHURN),
            ("Budget", BUDGET),
            ("Coalescing", COALESCING),
        ),
    )
