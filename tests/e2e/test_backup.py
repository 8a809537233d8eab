"""backup.sh and restore.sh on the native stack; what the files hold is tested with mongo/."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from whole_stack import ROOT, Stack, until


def test_a_backup_brings_the_users_back(stack: Stack, user_ids: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sluice.backup"
    before = stack.http.get(f"/users/{user_ids[0]}").json()
    saved = stack.script("backup.sh", str(file))
    assert saved.returncode == 0, saved.stderr
    assert file.stat().st_mode & 0o077 == 0
    later = new_user(stack)
    deleted = stack.http.delete(f"/users/{user_ids[0]}", headers={"If-Match": f'"{before["version"]}"'})
    assert deleted.status_code == 204

    restored = stack.script("restore.sh", "--yes", str(file))
    assert restored.returncode == 0, restored.stderr
    assert stack.http.get(f"/users/{user_ids[0]}").json() == before
    assert stack.http.get(f"/users/{later}").status_code == 404
    again = stack.http.post("/users", json={"email": before["email"], "name": "Somebody else"})
    assert again.status_code == 409, "the unique index is missing"


def test_a_damaged_backup_changes_nothing(stack: Stack, user_ids: list[str], tmp_path: Path) -> None:
    file = tmp_path / "sluice.backup"
    assert stack.script("backup.sh", str(file)).returncode == 0
    later = new_user(stack)
    file.write_bytes(file.read_bytes()[:-20])
    refused = stack.script("restore.sh", "--yes", str(file))
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    assert stack.http.get(f"/users/{later}").status_code == 200


def test_a_backup_that_fails_leaves_no_file(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "sluice.backup"
    failed = stack.script("backup.sh", str(file), SLUICE_HOME=str(tmp_path / "nothing runs here"))
    assert failed.returncode == 1
    assert failed.stderr == "backup.sh: no stack runs; start it with ./scripts/up.sh\n"
    assert list(tmp_path.iterdir()) == []


def test_a_backup_on_a_full_disk_leaves_no_file(stack: Stack, user_ids: list[str], tmp_path: Path) -> None:
    limited = f"ulimit -f 1; exec {ROOT}/scripts/backup.sh {tmp_path}/sluice.backup"
    command = ["bash", "-c", limited]
    failed = subprocess.run(command, env=stack.environment, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert failed.stderr.endswith("backup.sh: no backup was made\n")
    assert list(tmp_path.iterdir()) == []


def test_of_two_restores_the_second_is_refused_and_an_interrupted_one_leaves_all_as_it_was(
    stack: Stack, user_ids: list[str], tmp_path: Path
) -> None:
    file, pipe = tmp_path / "sluice.backup", tmp_path / "pipe"
    assert stack.script("backup.sh", str(file)).returncode == 0
    later = new_user(stack)
    os.mkfifo(pipe)
    command = [str(ROOT / "scripts/restore.sh"), "--yes", str(pipe)]
    with subprocess.Popen(
        command, env=stack.environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as first:
        with pipe.open("wb") as half:
            half.write(file.read_bytes()[:-20])
            half.flush()
            until(lambda: "is under way" in stack.script("backup.sh", str(tmp_path / "other")).stderr)
            second = stack.script("restore.sh", "--yes", str(file))
            assert (second.returncode, second.stderr.count("\n")) == (1, 1)
            assert second.stderr.endswith(" is under way; nothing was changed\n")
            os.killpg(first.pid, signal.SIGINT)  # Ctrl-C
            _, said = first.communicate(timeout=60)
        assert first.returncode != 0
        assert said == "restore: interrupted; nothing was changed\n"
    assert stack.http.get(f"/users/{later}").status_code == 200
    restored = stack.script("restore.sh", "--yes", str(file))
    assert restored.returncode == 0, restored.stderr
    assert stack.http.get(f"/users/{later}").status_code == 404


@pytest.mark.parametrize(
    ("script", "arguments"), [("backup.sh", ["a", "b"]), ("restore.sh", []), ("restore.sh", ["-x"])]
)
def test_misuse_is_one_line(stack: Stack, script: str, arguments: list[str]) -> None:
    refused = stack.script(script, *arguments)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.endswith("; see --help\n")


def new_user(stack: Stack) -> str:
    created = stack.http.post("/users", json={"email": f"{uuid.uuid4().hex}@example.org", "name": "Later"})
    assert created.status_code == 201, created.text
    return str(created.json()["id"])
