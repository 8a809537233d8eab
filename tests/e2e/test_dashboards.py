"""Every panel, variable and alert finds something to show in the Prometheus of a stack that runs under load."""

from __future__ import annotations

import pytest
from stack import Stack
from traffic import traffic

from grafana.checks.live import unanswered
from grafana.checks.sources import Expression, live_expressions


@pytest.mark.timeout(240)
def test_no_panel_variable_or_alert_is_without_an_answer(stack: Stack) -> None:
    with traffic(stack.url):
        assert unanswered(stack.prometheus_url, live_expressions(), patience=150) == {}
    nonsense = Expression("nowhere", "sluice_no_such_metric")
    assert list(unanswered(stack.prometheus_url, [nonsense], patience=0)) == ["nowhere: sluice_no_such_metric"]
