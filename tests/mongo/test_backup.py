"""backup.py on a real replica set: what it saves it brings back, and a damaged file changes nothing."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # By its path: the root's `tests` may have been taken for the package of this name.
    replica_set = runpy.run_path(str(ROOT / "api/tests/replica_set.py"))["ReplicaSet"](1)
    try:
        replica_set.start()
        yield replica_set.url.replace("/?", "/shop?")
    finally:
        replica_set.stop()


@pytest.fixture
def database(url: str) -> Iterator[Database[dict[str, Any]]]:
    """A thousand people of whom the names are unique, and an empty collection."""
    with MongoClient[dict[str, Any]](url) as client:
        client.drop_database("shop")
        client.shop.people.create_index("name", unique=True)
        client.shop.people.insert_many([{"name": f"{number:x}" * 9, "n": number} for number in range(1000)])
        client.shop.create_collection("empty")
        yield client.shop


def run(action: str, url: str, folder: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    (folder / "url").write_text(url)
    command = [sys.executable, str(ROOT / "mongo/backup.py"), action, "--url-file", str(folder / "url")]
    return subprocess.run(command, input=data, capture_output=True, timeout=60)


def contents(database: Database[dict[str, Any]]) -> dict[str, Any]:
    return {name: list(database[name].find().sort("_id")) for name in sorted(database.list_collection_names())}


def test_what_was_saved_comes_back(database: Database[dict[str, Any]], url: str, tmp_path: Path) -> None:
    before = contents(database)
    saved = run("dump", url, tmp_path)
    assert saved.returncode == 0, saved.stderr
    database.people.delete_many({"n": {"$lt": 500}})
    database["restoring.other"].insert_one({})  # of a restore that was killed
    restored = run("restore", url, tmp_path, saved.stdout)
    assert (restored.returncode, restored.stderr) == (0, b"restore: 1,000 documents of database shop\n")
    assert contents(database) == before
    assert database.people.index_information()["name_1"]["unique"]


def test_a_damaged_file_changes_nothing_and_leaves_nothing(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    whole = run("dump", url, tmp_path).stdout
    database.people.insert_one({"name": "later"})
    before = contents(database)
    cut = [whole[: len(whole) * share // 10] for share in range(10)]
    cut.append(whole[:-20])
    overwritten = [whole[:at] + bytes(40) + whole[at + 40 :] for at in range(20, len(whole) - 60, len(whole) // 10)]
    for damaged in (*cut, *overwritten):
        refused = run("restore", url, tmp_path, damaged)
        assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1), refused.stderr
        assert refused.stderr.startswith(b"restore: ")
        assert contents(database) == before
