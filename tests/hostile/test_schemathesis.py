"""The API does what its document says, whatever is sent: schemathesis with every check, on both drivers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from served import KEY, Service

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = 10
"""Cases of each operation and phase; `HOSTILE_EXAMPLES=500` takes more, by hand."""
SEED = 12
LEAST = 400


@pytest.mark.timeout(1_800)
def test_no_server_error_and_no_answer_that_is_not_documented(service: Service, tmp_path: Path) -> None:
    url = service.through if service.driver == "pymongo" else service.past  # both ways, in half the time of all four
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", "--url", url, "--header", f"X-API-Key: {KEY}"),
        *("--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"),
        *("--max-examples", os.environ.get("HOSTILE_EXAMPLES", str(EXAMPLES)), "--seed", str(SEED)),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{HERE / 'lib'}:{ROOT / 'api'}", "NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert cases is not None
    assert int(cases[1]) == int(cases[2]) > LEAST
    print(f"{service.driver}: {cases[0]}")
