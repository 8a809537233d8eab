"""The judges: linters of others, in an environment of their own that the first test installs."""

from __future__ import annotations

import re
import subprocess
import unittest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = """
set -euo pipefail
source scripts/lib.sh
make_venv "$SLUICE_HOME/judges" tests/judges/requirements.lock >&2
echo "$(folder_of "$SLUICE_HOME/judges")/bin"
"""
NOT_TO_BE_HAD = "(from versions: none)"
"""pip's words for a package of which it has heard nothing, or nothing for this machine."""


@pytest.fixture(scope="session")
def judges() -> Path:
    """The folder of their commands."""
    done = subprocess.run(["bash", "-c", INSTALL], cwd=ROOT, capture_output=True, text=True, timeout=600)
    if done.returncode != 0 and (missing := re.search(rf"requirement (\S+) .*{re.escape(NOT_TO_BE_HAD)}", done.stderr)):
        # Not pytest's own exception, of which the report would have a line for each test.
        raise unittest.SkipTest(f"no judges: PyPI can't be reached, or has no {missing[1]} for this machine")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """The repository's files, relative to it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.split("\0")[:-1] if (ROOT / name).is_file()]
