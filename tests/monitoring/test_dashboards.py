"""The dashboards are what the code makes, complete, and ask for metrics that exist."""

from __future__ import annotations

import re

import pytest
import yaml

from grafana.checks.promql import metrics
from grafana.checks.sources import (
    ROOT,
    Json,
    alert_expressions,
    boards,
    panel_expressions,
    panels,
    record_expressions,
    rules,
    runbook_expressions,
    variable_expressions,
)
from grafana.generate import FOLDER, dashboards
from grafana.limits import threshold
from sluice.statistics import metric_names

OTHERS = {
    "http_requests_total", "http_request_duration_seconds", "up", "ALERTS",
    "nginx_up", "nginx_http_requests_total", "nginx_connections_accepted", "nginx_connections_handled",
    "nginx_connections_active", "nginx_connections_reading", "nginx_connections_writing", "nginx_connections_waiting",
}  # fmt: skip
"""Metrics that the API's instrumentation, nginx's exporter and Prometheus itself export."""

BOARDS = pytest.mark.parametrize("board", [pytest.param(board, id=name) for name, board in boards().items()])


def test_checked_in_dashboards_are_what_the_code_makes() -> None:
    written = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert written == dashboards(), "run: python -m grafana"


@BOARDS
def test_every_panel_says_what_it_shows(board: Json) -> None:
    for panel in panels(board):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]


@BOARDS
def test_panels_fill_the_grid_and_do_not_overlap(board: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    rows = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(24) for y in range(rows)}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@BOARDS
def test_variables_that_are_used_are_declared(board: Json) -> None:
    used = set(re.findall(r"\$\{?(?!__)([a-z]\w+)", str([panel["targets"] for panel in panels(board)])))
    declared = {variable["name"] for variable in board["templating"]["list"]}
    assert used == declared


@BOARDS
def test_dashboards_lead_to_each_other(board: Json) -> None:
    (link,) = board["links"]
    assert link["type"] == "dashboards"
    assert set(link["tags"]) <= set(board["tags"])
    assert link["keepTime"]
    assert link["includeVars"]


def test_dashboards_turn_red_where_alerts_fire() -> None:
    pools = boards()["pools.json"]
    (panel,) = (panel for panel in panels(pools) if panel["title"] == "Utilization, by worker")
    steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert steps == [None, threshold("PoolNearlyFull"), threshold("PoolSaturated")]
    with pytest.raises(ValueError, match="no single threshold"):
        threshold("ErrorBudgetBurnsSlowly")


def test_every_metric_exists() -> None:
    recorded = {rule["record"] for rule in rules("record")}
    known = metric_names() | OTHERS | recorded
    used = {
        name: expression.place
        for source in (
            panel_expressions,
            variable_expressions,
            alert_expressions,
            record_expressions,
            runbook_expressions,
        )
        for expression in source()
        for name in metrics(expression.filled)
    }
    unknown = {
        name: place
        for name, place in used.items()
        if name not in known and re.sub(r"_(bucket|count|sum)$", "", name) not in known
    }
    assert unknown == {}
    assert recorded <= set(used), "recorded for nobody"


def test_provisioning_fits_the_rest() -> None:
    (source,) = _provisioned("datasources")["datasources"]
    scrape_interval = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape_interval
    assert source["type"] == "prometheus"
    (provider,) = _provisioned("dashboards")["providers"]
    assert provider["options"]["path"] == "${SLUICE_DASHBOARDS}"


def _provisioned(kind: str) -> Json:
    (path,) = (ROOT / "grafana" / "provisioning" / kind).glob("*.yml")
    content: Json = yaml.safe_load(path.read_text())
    return content
