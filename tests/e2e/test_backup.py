"""backup.sh and restore.sh on the native stack; what the files hold is tested with mongo/."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from stack import Stack


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
