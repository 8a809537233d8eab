"""Which of the repository's packages may import which: what is shipped or runs first must not need the rest."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"api", "app", "bench", "drill", "mongo", "scripts", "sluice", "stack", "tests"}


@pytest.mark.parametrize(
    ("package", "may_import"),
    [
        ("mongo", {"mongo"}),  # the image has nothing else of it
        ("stack", {"stack", "mongo", "app", "sluice"}),
        ("drill", {"drill", "stack", "mongo", "app", "sluice"}),
        ("bench", {"bench", "stack", "mongo", "app", "sluice"}),
    ],
)
def test_a_package_imports_nothing_that_stands_on_it(package: str, may_import: set[str]) -> None:
    imported = {}
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                imported[str(node.module).partition(".")[0]] = path
            elif isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0]: path for name in node.names}
    assert package in imported  # it was read
    assert {name: path for name, path in imported.items() if name in OURS - may_import} == {}


@pytest.mark.parametrize("module", ["stack.down", "stack.install", "stack.rotate"])
def test_what_runs_without_packages_needs_none(module: str) -> None:
    command = [sys.executable, "-S", "-c", f"import {module}"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
