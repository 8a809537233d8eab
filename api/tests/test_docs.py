"""The documentation says what the code does: settings, metrics, problems, links, and which way imports point."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from http import HTTPStatus
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from annotated_types import Ge, Le
from pydantic import SecretStr

import sluice
from app.http.problems import Kind, of_status
from app.settings.model import Settings
from app.settings.stack import StackSettings
from scripts.figures import PAGES, written
from sluice import statistics
from sluice.pool.budget import Demand
from sluice.statistics import metrics
from sluice.statistics.figures import figures_of
from sluice.statistics.slots import Slot
from sluice.statistics.snapshot import (
    TABLES,
    CoalescerStats,
    MemberStatus,
    OperationStats,
    PoolConfig,
    PoolSnapshot,
    PoolStats,
    WorkerSnapshot,
)
from sluice.statistics.summary import Distribution
from stack.layout import PORT_SETTINGS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, dict[str, Any]] = Settings.model_json_schema()["properties"]
TRACKED = subprocess.run(
    ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\0")[:-1]


def settings_in_example() -> dict[str, tuple[str, str]]:
    """Each name with the default that is shown, and what is said about it."""
    found: dict[str, tuple[str, str]] = {}
    said: list[str] = []
    for line in (ROOT / ".env.example").read_text().splitlines():
        if setting := re.fullmatch(r"# ([A-Z][A-Z_]+)=(\S*)", line):
            assert setting[1] not in found, f"{setting[1]} is there twice"
            found[setting[1]] = (setting[2], " ".join(said))
            said = []
        elif line.startswith("# "):
            said.append(line[2:])
        else:
            said = []
    return found


def stack_settings() -> dict[str, str]:
    """What the scripts and the compose files read besides the service's settings, with its default."""
    fields = StackSettings.model_fields
    found = {name: str(fields[name.lower()].default) for name in (*PORT_SETTINGS, "SLUICE_LOG_MAX_BYTES")}
    found |= {"SLUICE_HOME": "", "SLUICE_RUN": ""}
    for file in ("docker-compose.prod.yml", "docker-compose.yml"):  # the usual one's defaults are those to show
        for name, default in re.findall(r"\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)?\}", (ROOT / file).read_text()):
            if name.lower() not in Settings.model_fields:
                found[name] = default
    return found


def limits(name: str) -> tuple[int, int] | None:
    """The least and the most that a setting may be, if it is a number."""
    if "integer" not in {part.get("type") for part in (SCHEMA[name], *SCHEMA[name].get("anyOf", ()))}:
        return None
    field = Settings.model_fields[name]
    given = [*field.metadata, *(limit for part in getattr(field.annotation, "__args__", ()) for limit in _of(part))]
    least = [int(str(limit.ge)) for limit in given if isinstance(limit, Ge)]
    most = [int(str(limit.le)) for limit in given if isinstance(limit, Le)]
    return max(least), min(most)


def _of(annotation: Any) -> list[Any]:
    return [limit for part in getattr(annotation, "__metadata__", ()) for limit in getattr(part, "metadata", ())]


def test_every_setting_is_in_the_example_and_nothing_else_is() -> None:
    assert set(settings_in_example()) == {name.upper() for name in Settings.model_fields} | set(stack_settings())


def test_every_setting_of_the_stack_is_checked_before_a_start() -> None:
    checked = {name.upper(): field.default for name, field in StackSettings.model_fields.items()}
    assert {name: "" if default is None else str(default) for name, default in checked.items()} == stack_settings()


def test_the_example_shows_the_real_defaults() -> None:
    expected = stack_settings()
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory is not None or field.default is None else field.default
        text = default.get_secret_value() if isinstance(default, SecretStr) else str(default)
        expected[name.upper()] = text.lower() if isinstance(default, bool) else text
    assert {name: default for name, (default, _) in settings_in_example().items()} == expected


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_example_says_what_is_allowed(name: str) -> None:
    said = settings_in_example()[name.upper()][1]
    assert said
    if (allowed := limits(name)) is not None:
        assert f"{allowed[0]} to {allowed[1]}" in said
    for choice in SCHEMA[name].get("enum", ()):
        assert re.search(rf"\b{choice}\b", said), choice


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert documented == statistics.metric_names() | {"http_requests_total", "http_request_duration_seconds"}


def test_metrics_are_documented_as_they_are_exported(tmp_path: Path) -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+)[^|]* \| ([^|]*) \|", text, re.MULTILINE)
    documented = {name.removesuffix("_total"): (kind, meaning) for name, kind, meaning in rows}
    for family in metrics.SluiceCollector(tmp_path, "sluice", demand=Demand(1, 1, 1), budget=1).collect():
        assert documented[family.name] == (family.type, family.documentation)


def a_snapshot() -> WorkerSnapshot:
    """Of a worker that has a figure of every kind."""
    return WorkerSnapshot(
        worker=0,
        pid=1,
        app_name="sluice-here-0",
        memory_bytes=1,
        driver="pymongo",
        pool_config=PoolConfig(max_pool_size=10),
        pools=[PoolSnapshot(member="a:1", exists=True, stats=PoolStats(closed={"idle": 1}))],
        operations=[OperationStats("users", "find", errors={"QueueFull": 1})],
        coalescers=[CoalescerStats("read", "users")],
        members=[MemberStatus("a:1", True, 1.0, "primary", 1, 1, 1, 0.0, {"query": 1}, 1, 1, 1, 1, 1)],
    )


def test_labels_are_documented_as_they_are_exported(tmp_path: Path) -> None:
    slot = Slot.claim(tmp_path)
    slot.publish(a_snapshot())
    documented = {}
    for section in re.split(r"^## ", (ROOT / "docs/metrics.md").read_text(), flags=re.MULTILINE):
        labels = re.match(r".*\n\nLabels: ((?:`\w+`(?:, )?)+)\.", section)
        for name, own in re.findall(r"^\| `(\w+)` \| \w+(?:, also by `(\w+)`)?", section, re.MULTILINE):
            documented[name.removesuffix("_total")] = set(re.findall(r"\w+", labels[1] if labels else "")) | {own} - {
                ""
            }
    for family in metrics.SluiceCollector(tmp_path, "main", demand=Demand(1, 1, 1), budget=1).collect():
        assert family.samples, family.name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == documented[family.name], family.name
    slot.close()


def kinds_of_problem() -> list[Kind]:
    paths = [path.relative_to(ROOT / "api").with_suffix("") for path in sorted((ROOT / "api/app").rglob("*.py"))]
    modules = [import_module(".".join(path.parts).removesuffix(".__init__")) for path in paths]
    found = {value.type: value for module in modules for value in vars(module).values() if isinstance(value, Kind)}
    return list(found.values())


def test_nginx_and_the_api_give_a_problem_the_same_title() -> None:
    plain = [of_status(status) for status in HTTPStatus if status >= 400]  # such as the framework's own 405
    titles = {kind.type: kind.title for kind in (*plain, *kinds_of_problem())}
    by_nginx = re.findall(r'"type":"([^"]+)","title":"([^"]+)"', (ROOT / "nginx/nginx.conf").read_text())
    assert len(by_nginx) == (ROOT / "nginx/nginx.conf").read_text().count("/problems/")
    assert [(kind, title) for kind, title in by_nginx if titles.get(kind, title) != title] == []


def test_every_problem_is_documented_and_every_documented_one_exists() -> None:
    kinds = kinds_of_problem()
    rows = re.findall(
        r"^\| `(/problems/[\w-]+)` \| (\d+) \| (\d*) *\|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE
    )
    documented = {kind: (status, retry_after) for kind, status, retry_after in rows}
    by_nginx = set(re.findall(r"/problems/[\w-]+", (ROOT / "nginx/nginx.conf").read_text()))
    assert by_nginx
    assert set(documented) == {kind.type for kind in kinds} | by_nginx
    for kind in kinds:
        status, retry_after = documented[kind.type]
        assert status == str(kind.status), kind.type
        assert kind.type in by_nginx or retry_after == str(kind.retry_after or ""), kind.type


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_of_figures_are_what_the_code_declares(page: Path) -> None:
    text = page.read_text()
    assert written(text) == text, "run: PYTHONPATH=api python scripts/figures.py"


@pytest.mark.parametrize("table", [*TABLES, Distribution])
def test_every_figure_of_the_statistics_is_documented(table: type[DataclassInstance]) -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/pool.md").read_text(), re.MULTILINE))
    published = {figure.name for figure in figures_of(table) if figure.in_json}
    assert published <= documented | Settings.model_fields.keys()  # a pool's limits are settings


def test_what_a_rise_means_is_said_of_every_figure_of_the_pools() -> None:
    meanings = (ROOT / "docs/pool.md").read_text().partition("| figure | a rise means |\n")[2].partition("\n\n")[0]
    said = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", meanings, re.MULTILINE)
    assert {name for names in said for name in re.findall(r"\w+", names)} == {
        figure.name for figure in figures_of(PoolStats) if figure.in_json
    }


@pytest.mark.parametrize("page", TRACKED)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)]*)?\)", path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}, anchor


def test_the_tests_that_the_threat_model_names_are_there() -> None:
    text = (ROOT / "docs/threat-model.md").read_text()
    named = re.findall(r"`(test_\w+)` in \[test_\w+\.py\]\(([^)]+)\)", text)
    assert len(named) == len(re.findall(r"`test_\w+`", text)) > 15
    for name, target in named:
        assert re.search(rf"def {name}\(", (ROOT / "docs" / target).read_text()), name


EXTRAS = {"statistics/metrics.py": "prometheus_client", "statistics/process.py": "psutil"}
"""What only these may import: whoever uses the rest needn't install it."""


@pytest.mark.parametrize(
    "module",
    sorted(path for part in ("api/app", "bench", "examples") for path in (ROOT / part).rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_applications_use_the_public_face_of_the_pool_core(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sluice":
            assert node.module == "sluice"
            assert {alias.name for alias in node.names} <= set(sluice.__all__)
        elif isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.startswith("sluice.")]


@pytest.mark.parametrize("module", sorted((ROOT / "api/sluice").rglob("*.py")), ids=lambda path: str(path.stem))
def test_the_pool_core_knows_no_web_framework_and_no_application(module: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported.isdisjoint({"app", "fastapi", "starlette", "uvicorn", "gunicorn", "pydantic"})
    place = str(module.relative_to(ROOT / "api/sluice"))
    assert EXTRAS.get(place) in imported if place in EXTRAS else imported.isdisjoint(EXTRAS.values())


@pytest.mark.parametrize("driver", ["pymongo", "motor"])
def test_the_drivers_are_the_pinned_ones(driver: str) -> None:
    project = tomllib.loads((ROOT / "api/pyproject.toml").read_text())["project"]
    exact = f"{driver}=={version(driver)}"
    assert exact in (ROOT / "api/requirements.in").read_text().split()
    assert exact in project["dependencies"] + project["optional-dependencies"]["motor"]


def test_no_file_names_a_package_registry_or_pins_without_hashes() -> None:
    for lock in (*ROOT.glob("*/requirements*.lock"), *ROOT.glob("tests/*/*.lock"), ROOT / "stack/mongod.lock"):
        text = lock.read_text()
        assert "://" not in text, lock
        assert text.count("==") <= text.count("--hash="), lock
