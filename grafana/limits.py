"""The alerts' thresholds, so that a dashboard turns red exactly where an alert would fire."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

ALERTS = Path(__file__).resolve().parent.parent / "prometheus" / "rules" / "alerts.yml"


@cache
def _expressions() -> dict[str, str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: str(rule["expr"]) for group in groups for rule in group["rules"]}


def threshold(alert: str) -> float:
    """The number that `alert` compares with, in its expression's unit.

    Raises `KeyError` for an alert that doesn't exist and `ValueError` for one that compares more than once.
    """
    found = re.findall(r"(?:[<>]=?|[=!]=) ([0-9.]+)", _expressions()[alert])
    if len(found) != 1:
        raise ValueError(f"{alert} has no single threshold: {_expressions()[alert]}")
    return float(found[0])
