"""The tests' own reading of PromQL."""

from __future__ import annotations

import pytest

from grafana.checks.promql import metrics, signals


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('sum by (le) (rate(a_bucket{x="b{c}",y=~".*/bulk"}[5m])) / 2', {"a_bucket"}),
        ("a:b:c > 14.4 * 0.001 and on (d) e unless f", {"a:b:c", "e", "f"}),
        ('label_replace(vector(0), "by", "x", "", "") or on () group_left () avg_over_time(z[5m])', {"z"}),
        ("max by (member) (a{}) offset 5m", {"a"}),
    ],
)
def test_metrics(expression: str, expected: set[str]) -> None:
    assert metrics(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a > 1", ["a"]),
        ('(sum(up{job="a>b"}) or vector(0)) < 1', ['(sum(up{job="a>b"}) or vector(0))']),
        ("(a > 1 and b > 2\nor\nc > 3) and on (x) d == 4", ["a", "b", "c", "d"]),
        ("(a) / (b) > 0.5", ["(a) / (b)"]),
    ],
)
def test_signals(expression: str, expected: list[str]) -> None:
    assert signals(expression) == expected
