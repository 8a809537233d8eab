"""What the repository says about monitoring: dashboards, rules, the rules' tests, and every expression in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grafana.checks.promql import signals

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "grafana" / "dashboards"
RULES = ROOT / "prometheus" / "rules"
RULE_TESTS = ROOT / "prometheus" / "tests"
RUNBOOK = ROOT / "docs" / "runbook.md"

Json = dict[str, Any]


@dataclass(frozen=True)
class Expression:
    """A query, and where it is written."""

    place: str
    text: str

    @property
    def filled(self) -> str:
        """With a dashboard's variables as they are at first: everything, a minute's rates."""
        return re.sub(r"\$[a-z]\w*", ".*", self.text.replace("$__rate_interval", "1m"))


def boards() -> dict[str, Json]:
    return {path.name: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(board: Json) -> list[Json]:
    """Every panel but the rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def rules(kind: str) -> list[Json]:
    """All rules of a kind: `alert` or `record`."""
    files = sorted(RULES.glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def rule_tests() -> list[Json]:
    return [test for path in sorted(RULE_TESTS.glob("*.yml")) for test in yaml.safe_load(path.read_text())["tests"]]


def panel_expressions() -> Iterator[Expression]:
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield Expression(f"{name}: {panel['title']} {target['refId']}", target["expr"])


def variable_expressions() -> Iterator[Expression]:
    """What the variables choose from, as a query: series that have the label."""
    for name, board in boards().items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                if not asked:
                    raise ValueError(f"not a label_values query: {variable}")
                metric, label = asked.groups()
                yield Expression(f"{name}: variable {variable['name']}", f"count by ({label}) ({metric}) > 0")


def alert_expressions() -> Iterator[Expression]:
    """The alerts' expressions without their comparisons, which hold only when something is wrong."""
    for rule in rules("alert"):
        for signal in signals(rule["expr"]):
            yield Expression(f"alert {rule['alert']}", signal)


def record_expressions() -> Iterator[Expression]:
    for rule in rules("record"):
        yield Expression(f"rule {rule['record']}", rule["expr"])


def runbook_expressions() -> Iterator[Expression]:
    """What the runbook asks Prometheus."""
    for number, line in enumerate(RUNBOOK.read_text().splitlines(), start=1):
        if asked := re.fullmatch(r"ask '(.+)'", line):
            yield Expression(f"{RUNBOOK.name}:{number}", asked[1])


def live_expressions() -> list[Expression]:
    """Everything that must return something on a stack that runs under load."""
    return [*panel_expressions(), *variable_expressions(), *alert_expressions()]
