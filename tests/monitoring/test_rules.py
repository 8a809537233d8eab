"""The rules are valid, and every alert fires, clears, and says what to do."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from grafana.checks.sources import RULE_TESTS, RULES, RUNBOOK, Json, rule_tests, rules

SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation")
ALERTS = pytest.mark.parametrize("alert", [pytest.param(rule, id=rule["alert"]) for rule in rules("alert")])


def promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is missing (Debian: the package prometheus)")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, cwd=RULE_TESTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid() -> None:
    promtool("check", "rules", *map(str, sorted(RULES.glob("*.yml"))))


@pytest.mark.parametrize("name", [path.name for path in sorted(RULE_TESTS.glob("*.yml"))])
def test_rules_do_what_they_say(name: str) -> None:
    promtool("test", "rules", name)


@ALERTS
def test_alert_is_complete(alert: Json) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


@ALERTS
def test_alert_fires_and_clears_in_a_promtool_test(alert: Json) -> None:
    asked = f'ALERTS{{alertname="{alert["alert"]}",alertstate="firing"}}'
    outcomes = [
        [bool(step.get("exp_samples")) for step in test.get("promql_expr_test", ()) if step["expr"] == asked]
        for test in rule_tests()
    ]
    assert any(True in steps and False in steps[steps.index(True) :] for steps in outcomes), f"no test asks for {asked}"


def test_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == [rule["alert"] for rule in rules("alert")]
    for name, text in sections:
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == list(SECTIONS), name


def test_what_no_alert_tells_has_sections_of_the_same_kind() -> None:
    sections = re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert len(sections) > 15
    for name, text in sections:
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == list(SECTIONS), name
        assert "```bash\n" in text, name
