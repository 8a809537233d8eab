"""The one-shot that makes a stack's secrets, as a container runs it: with the same process id each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mongo.make_secrets import KEY_FILE, PASSWORDS, make_secrets

ROOT = Path(__file__).resolve().parents[2]


def test_what_one_that_was_killed_has_left_stops_nobody(tmp_path: Path) -> None:
    draft = tmp_path / f".{KEY_FILE}.{os.getpid()}"
    draft.write_text("half")
    draft.chmod(0o400)
    make_secrets(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {KEY_FILE, *PASSWORDS}
    assert len((tmp_path / KEY_FILE).read_text()) > 600


def test_a_full_disk_leaves_no_draft(tmp_path: Path) -> None:
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "limited"]
    command = [*limited, sys.executable, "-B", str(ROOT / "mongo" / "make_secrets.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []
    make_secrets(tmp_path)


def test_they_are_never_replaced(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    make_secrets(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
