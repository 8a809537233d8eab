"""Every panel, variable and alert returns something from a stack that runs under load."""

from __future__ import annotations

import os

import pytest

from grafana.checks.live import unanswered
from grafana.checks.sources import live_expressions


@pytest.mark.timeout(180)
@pytest.mark.skipif("SLUICE_TEST_PROMETHEUS" not in os.environ, reason="SLUICE_TEST_PROMETHEUS names no Prometheus")
def test_every_expression_returns_something() -> None:
    assert unanswered(os.environ["SLUICE_TEST_PROMETHEUS"], live_expressions()) == {}
