"""The documentation says what the code does: settings, metrics, problems, links, and which way imports point."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from app.problems import Kind
from app.settings import Settings
from sluice import metrics

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\0")[:-1]


def settings_in_example() -> dict[str, str]:
    text = (ROOT / ".env.example").read_text()
    return dict(re.findall(r"^# ([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_every_setting_is_in_the_example_and_nothing_else_is() -> None:
    shown = {name for name in settings_in_example() if not name.startswith("SLUICE_")}
    assert shown == {name.upper() for name in Settings.model_fields}


def test_the_example_shows_the_real_defaults() -> None:
    for name, shown in settings_in_example().items():
        if name.startswith("SLUICE_"):
            continue
        field = Settings.model_fields[name.lower()]
        default = field.default if field.default_factory is None and field.default is not None else ""
        if hasattr(default, "get_secret_value"):
            default = default.get_secret_value()
        assert shown == (str(default).lower() if isinstance(default, bool) else str(default)), name


def test_the_stacks_ports_are_in_the_example() -> None:
    layout = (ROOT / "scripts/native/layout.py").read_text()
    ports = dict(re.findall(r'_port\((?:values, )?"(SLUICE_\w+)", ([\d_]+)\)', layout))
    shown = settings_in_example()
    assert ports
    assert {name: shown.get(name) for name in ports} == {name: port.replace("_", "") for name, port in ports.items()}


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert documented == metrics.names() | {"http_requests_total", "http_request_duration_seconds"}


def test_every_problem_is_documented_and_every_documented_one_exists() -> None:
    modules = [import_module(f"app.{name}") for name in ("problems", "errors", "health")]
    kinds = {value.type for module in modules for value in vars(module).values() if isinstance(value, Kind)}
    documented = set(re.findall(r"^\| `(/problems/[\w-]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE))
    by_nginx = set(re.findall(r"/problems/[\w-]+", (ROOT / "nginx/nginx.conf").read_text()))
    assert by_nginx
    assert documented == kinds | by_nginx


@pytest.mark.parametrize("page", TRACKED)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("module", sorted((ROOT / "api/sluice").glob("*.py")), ids=lambda path: str(path.stem))
def test_the_pool_core_knows_no_web_framework_and_no_application(module: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported.isdisjoint({"app", "fastapi", "starlette", "uvicorn", "gunicorn"})


def test_no_file_names_a_package_registry_or_pins_without_hashes() -> None:
    for lock in (*ROOT.glob("*/requirements*.lock"), ROOT / "scripts/native/mongod.lock"):
        text = lock.read_text()
        assert "://" not in text, lock
        assert text.count("==") <= text.count("--hash="), lock
