"""What was measured, as it is stored: rows of labels with the figures of each round."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.measure import Figures

HERE = Path(__file__).parent / "results"
PACKAGES = ("fastapi", "gunicorn", "httptools", "motor", "pydantic", "pymongo", "uvicorn", "uvicorn-worker", "uvloop")
Label = str | int | float
Labels = dict[str, Label]


@dataclass
class Row:
    """One side of one comparison; its figures round by round."""

    labels: Labels
    rounds: list[Figures] = field(default_factory=list)

    def median(self, figure: str) -> float | None:
        """Of the rounds that have this figure; None if none has."""
        values = [measured[figure] for measured in self.rounds if figure in measured]
        return statistics.median(values) if values else None


@dataclass
class Workload:
    """One workload's outcome. `setup` says how each side was set up, in words."""

    setup: list[str]
    date: str = ""
    rows: list[Row] = field(default_factory=list)

    def row(self, **labels: Label) -> Row:
        """The row with these labels, made if needed."""
        found = next((row for row in self.rows if row.labels == labels), None)
        if found is None:
            found = Row(labels)
            self.rows.append(found)
        return found

    def select(self, **labels: Label) -> Iterator[Row]:
        """The rows that have these labels among theirs."""
        return (row for row in self.rows if labels.items() <= row.labels.items())

    def median(self, figure: str, **labels: Label) -> float | None:
        """A figure of the first row with these labels; None if there is none."""
        row = next(self.select(**labels), None)
        return row.median(figure) if row is not None else None

    def ratio(self, figure: str, labels: Labels, other: Labels) -> float | None:
        """A figure of one row over another's: the median of the rounds, in each of which they took turns."""
        row, base = next(self.select(**labels), None), next(self.select(**other), None)
        if row is None or base is None:
            return None
        pairs = zip(row.rounds, base.rounds, strict=False)
        ratios = [one[figure] / two[figure] for one, two in pairs if figure in one and two.get(figure)]
        return statistics.median(ratios) if ratios else None


@dataclass
class Results:
    """A results file: the machine, and the workloads that were measured on it."""

    machine: dict[str, str]
    workloads: dict[str, Workload] = field(default_factory=dict)

    def add(self, name: str, workload: Workload) -> None:
        workload.date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.workloads[name] = workload

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(_rounded(asdict(self)), indent=None, separators=(",", ":")) + "\n")
        draft.replace(path)


def load(path: Path) -> Results:
    """Raises `OSError` and `ValueError` for a file that can't be read."""
    stored = json.loads(path.read_text())
    workloads = {
        name: Workload(
            workload["setup"], workload["date"], [Row(row["labels"], row["rounds"]) for row in workload["rows"]]
        )
        for name, workload in stored["workloads"].items()
    }
    return Results(stored["machine"], workloads)


def machine(mongod: Path) -> dict[str, str]:
    """What the figures depend on, and nothing that tells whose machine it is."""
    found = subprocess.run([mongod, "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')}, Linux {platform.release()}",
        "python": platform.python_version(),
        "mongod": found.splitlines()[0].removeprefix("db version v"),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _rounded(value: object) -> object:
    """Four significant digits are more than the measurements have."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
