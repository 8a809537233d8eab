"""The API does what its document says, whatever is sent: schemathesis with every check, on both drivers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from schemathesis_hooks import DROPPED, SUCCEEDED, fits
from served import KEY, Service

from app.main import create_app
from app.settings.model import load

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = 10
"""Cases of each operation and phase; `HOSTILE_EXAMPLES=1000` takes more, by hand, and `HOSTILE_SEED` others."""
SEED = 12
LEAST = 400


@pytest.mark.timeout(1_800)
def test_no_server_error_and_no_answer_that_is_not_documented(service: Service, tmp_path: Path) -> None:
    url = service.through if service.driver == "pymongo" else service.past  # both ways, in half the time of all four
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", "--url", url, "--header", f"X-API-Key: {KEY}"),
        *("--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"),
        *(
            "--max-examples",
            os.environ.get("HOSTILE_EXAMPLES", str(EXAMPLES)),
            "--seed",
            os.environ.get("HOSTILE_SEED", str(SEED)),
        ),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{HERE / 'lib'}:{ROOT / 'api'}", "NO_COLOR": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert cases is not None
    assert int(cases[1]) == int(cases[2]) > LEAST
    document = httpx.get(f"{url}/openapi.json").json()
    operations = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert set((tmp_path / SUCCEEDED).read_text().splitlines()) == operations
    dropped = tmp_path / DROPPED
    print(f"{service.driver}: {cases[0]}; not against the document:", dropped.read_text() if dropped.exists() else "-")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"email": "a@example.org", "name": "A"}', True),
        (b'{"email": "a@example.org", "name": "A", "age": 7, "tags": []}', True),
        (b'{"email": "a@example.org", "name": " "}', False),
        (b'{"email": "a", "name": "A"}', False),
        (b'{"email": "a@example.org", "name": "A", "age": "7"}', False),
        (b'{"email": "a@example.org", "name": "A", "more": 1}', False),
        (b'{"name": "A"}', False),
        (b"[]", False),
        (b"{", False),
    ],
)
def test_only_what_the_document_allows_is_no_finding(body: bytes, expected: bool) -> None:
    document = create_app(load(_env_file=None)).openapi()
    assert fits(document, "/users", "POST", body) is expected
