"""A figure is declared once: whatever shows figures is made from that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sluice.statistics.figures import added, figures_of, past
from sluice.statistics.snapshot import TABLES, CoalescerStats, PoolStats

ROOT = Path(__file__).resolve().parents[3]

SHOW = """
import asyncio, json, sys
from pathlib import Path
from prometheus_client import CollectorRegistry, generate_latest
from app.main import create_app
from app.observe.stats import body
from app.settings.model import Settings
from scripts.figures import PAGES, written
from sluice.statistics.metrics import SluiceCollector
from sluice.statistics.slots import Slot, read_all
from sluice.statistics.snapshot import PoolConfig, PoolSnapshot, PoolStats, WorkerSnapshot
from sluice.statistics.summary import summarize

folder = Path(sys.argv[1])
slots = [Slot.claim(folder) for _ in range(3)]
for slot in slots:
    pool = PoolSnapshot(member="a:1", exists=True, stats=PoolStats(reused=2))
    slot.publish(WorkerSnapshot(
        worker=slot.number, pid=1, app_name="x", driver="pymongo", pool_config=PoolConfig(),
        pools=[pool], operations=[], coalescers=[], members=[],
    ))
slots[2].close()  # what only grows outlives its worker
found = read_all(folder)
registry = CollectorRegistry()
registry.register(SluiceCollector(folder, "main"))
settings = Settings(mongodb_url="mongodb://127.0.0.1:1", stats_dir=folder)
print(json.dumps({
    "snapshots": [snapshot.pools[0].stats.reused for snapshot in found],
    "sum": summarize(found).pool.reused,
    "answer": json.loads(body(summarize(found), "complete")),
    "schemas": create_app(settings).openapi()["components"]["schemas"],
    "metrics": generate_latest(registry).decode(),
    "pages": {page.name: written(page.read_text()) for page in PAGES},
}))
"""


def test_one_line_makes_a_figure_everywhere(tmp_path: Path) -> None:
    [line] = re.findall(r"^reused: .+$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)  # as it is documented
    for part in ("api/app", "api/sluice", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/figures.py", tmp_path / "scripts")
    declarations = tmp_path / "api/sluice/statistics/snapshot.py"
    text = declarations.read_text()
    declarations.write_text(text.replace("    paused_pools: int", f"    {line}\n    paused_pools: int", 1))
    shown = subprocess.run(
        [sys.executable, "-c", SHOW, str(tmp_path / "statistics")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path / 'api'}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert (found["snapshots"], found["sum"]) == ([2, 2, 2], 6)
    stats = found["answer"]["connection_pool_stats"]
    assert (stats["reused"], stats["members"][0]["reused"]) == (6, 6)
    assert [worker["reused"] for worker in stats["workers"]] == [2, 2]
    for schema in ("ConnectionPoolStats", "MemberPools", "WorkerPools"):
        assert found["schemas"][schema]["properties"]["reused"]["type"] == "integer"
        assert "Connections taken from" in found["schemas"][schema]["properties"]["reused"]["description"]
        assert "reused" in found["schemas"][schema]["required"]
    samples = re.findall(r'^db_client_connection_reused_total\{.*worker="(.)"\} (.*)$', found["metrics"], re.MULTILINE)
    assert samples == [("0", "2.0"), ("1", "2.0"), ("2", "2.0")]
    assert "# HELP db_client_connection_reused_total Connections taken from the idle ones." in found["metrics"]
    assert "\n| `db_client_connection_reused_total` | counter |" in found["pages"]["metrics.md"]
    assert "\n| `reused` | counter |" in found["pages"]["pool.md"]


def test_no_two_figures_of_a_table_are_one_metric_unless_a_label_tells_them_apart() -> None:
    samples = [
        (figure.metric, tuple(figure.labels.items()))
        for table in TABLES
        for figure in figures_of(table)
        if figure.metric and figure.kind != "label"
    ]
    assert len(samples) == len(set(samples))
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds().items())


def kinds() -> dict[str, str]:
    return {f.metric: f.kind for table in TABLES for f in figures_of(table) if f.metric and f.kind != "label"}


def test_figures_are_added_as_they_are_declared() -> None:
    rows = [
        PoolStats(
            total_created=n, active_connections=n, idle_connections=1, oldest_waiter_seconds=n / 2, permits=10,
            permits_held=n, available_connections=10 - n, closed={"idle": n, f"only {n}": 1}, eligible=n != 3,
        )
        for n in (1, 2, 3)
    ]  # fmt: skip
    for row in rows:
        row.wait_time.observe(0.002)
    total = added(PoolStats, rows)
    assert (total.total_created, total.active_connections, total.current_connections) == (6, 6, 9)
    assert total.oldest_waiter_seconds == 1.5
    assert total.closed == {"idle": 6, "only 1": 1, "only 2": 1, "only 3": 1}
    assert total.wait_time.count == 3
    assert (total.permits, total.available_connections) == (20, 17)  # where operations may go
    assert total.utilization == pytest.approx(3 / 20)
    assert added(PoolStats, []) == PoolStats()


def test_only_what_grows_outlives_a_worker() -> None:
    stats = CoalescerStats(kind="read", collection="users", in_flight=2, waiting=3)
    stats.count(5)
    kept = past(stats)
    assert (kept.kind, kept.in_flight, kept.waiting, kept.operations, kept.batches, kept.saved) == (
        "read",
        0,
        0,
        5,
        1,
        4,
    )
    assert kept.batch_size.count == 1
