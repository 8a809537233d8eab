"""backup.py on a real replica set: what it saves it brings back, and whatever stops it changes nothing."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from stack.replica_set import ReplicaSet

ROOT = Path(__file__).resolve().parents[2]


LOCK = "sluice.restoring.lock"
ADULTS = {"$jsonSchema": {"required": ["name"], "properties": {"n": {"bsonType": "int", "minimum": 18}}}}


@pytest.fixture(scope="module")
def replica_set() -> Iterator[ReplicaSet]:
    replica_set = ReplicaSet(1, auth=True)
    shop = {"db": "shop", "collection": ""}
    try:
        replica_set.start()
        read_write = {"role": "readWrite", "db": "shop"}
        replica_set.create_user("app", read_write, privileges=[{"resource": shop, "actions": ["collMod"]}])
        replica_set.create_user("plain", read_write)
        yield replica_set
    finally:
        replica_set.stop()


@pytest.fixture(scope="module")
def url(replica_set: ReplicaSet) -> str:
    """With the rights that the service's user has."""
    return replica_set.url_of("app", "shop")


@pytest.fixture
def database(replica_set: ReplicaSet) -> Iterator[Database[dict[str, Any]]]:
    """A thousand people of whom the names are unique, and an empty collection with a schema."""
    with MongoClient[dict[str, Any]](replica_set.url_of("root")) as client:
        client.drop_database("shop")
        client.shop.people.create_index("name", unique=True)
        client.shop.people.insert_many([{"name": f"{number:x}" * 9, "n": number} for number in range(1000)])
        client.shop.create_collection("empty", validator=ADULTS)
        yield client.shop


def command(action: str, url: str, folder: Path) -> list[str]:
    (folder / "url").write_text(url)
    program = ["env", f"PYTHONPATH={ROOT}", sys.executable, str(ROOT / "mongo/backup.py")]  # as the image has it
    return [*program, action, "--url-file", str(folder / "url")]


def run(action: str, url: str, folder: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(action, url, folder), input=data, capture_output=True, timeout=60)


def dumped(url: str, folder: Path) -> bytes:
    saved = run("dump", url, folder)
    assert saved.returncode == 0, saved.stderr
    return saved.stdout


def restored(url: str, folder: Path, data: bytes) -> list[str]:
    """What it said besides that it's done."""
    done = run("restore", url, folder, data)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0, lines
    assert lines[-1].endswith("documents of database shop")
    return lines[:-1]


@contextmanager
def half_way(url: str, folder: Path, data: bytes, database: Database[Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A restore that waits for the rest of its file."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command("restore", url, folder), stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        process.stdin.write(data[: len(data) // 2])
        process.stdin.flush()
        try:
            until(lambda: LOCK in database.list_collection_names())
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def age_lock(database: Database[Any], **more: Any) -> None:
    """As it is some time after its holder was killed."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    assert database[LOCK].update_one({}, {"$set": {"beat": past, **more}}).matched_count == 1


def contents(database: Database[dict[str, Any]]) -> dict[str, Any]:
    names = [name for name in database.list_collection_names() if not name.startswith("system.")]
    return {name: list(database[name].find().sort("_id")) for name in sorted(names)}


def test_what_was_saved_comes_back(database: Database[dict[str, Any]], url: str, tmp_path: Path) -> None:
    before = contents(database)
    saved = run("dump", url, tmp_path)
    assert saved.returncode == 0, saved.stderr
    database.people.delete_many({"n": {"$lt": 500}})
    database["sluice.restoring.0123.0"].insert_one({})  # of a restore that was killed
    restored = run("restore", url, tmp_path, saved.stdout)
    assert (restored.returncode, restored.stderr) == (0, b"restore: 1,000 documents of database shop\n")
    assert contents(database) == before
    assert database.people.index_information()["name_1"]["unique"]
    assert database.empty.options()["validator"] == ADULTS


def test_a_damaged_file_changes_nothing_and_leaves_nothing(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    whole = run("dump", url, tmp_path).stdout
    database.people.insert_one({"name": "later"})
    before = contents(database)
    cut = [whole[: len(whole) * share // 4] for share in range(4)]
    cut.append(whole[:-20])
    overwritten = [whole[:at] + bytes(40) + whole[at + 40 :] for at in range(20, len(whole) - 60, len(whole) // 4)]
    for damaged in (*cut, *overwritten):
        refused = run("restore", url, tmp_path, damaged)
        assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1), refused.stderr
        assert refused.stderr.startswith(b"restore: ")
        assert contents(database) == before


def packed(*records: dict[str, Any]) -> bytes:
    count = sum("document" in record for record in records)
    return gzip.compress(b"".join(map(bson.encode, ({"sluice_backup": 1}, *records, {"end": count}))))


PEOPLE: dict[str, Any] = {"collection": "people", "options": {}, "indexes": []}


@pytest.mark.parametrize(
    "records",
    [
        (PEOPLE, {"document": {"n": 1}}, PEOPLE, {"document": {"n": 2}}),
        *(({**PEOPLE, "collection": name}, {"document": {}}) for name in (LOCK, "system.users", "", "a$b", "a\0b", 5)),
        ({**PEOPLE, "options": {"viewOn": "empty", "pipeline": []}},),
        ({**PEOPLE, "options": {"timeseries": {"timeField": "t"}}},),
        (PEOPLE, {"document": 5}),
    ],
)
def test_a_backup_that_was_tampered_with_changes_nothing(
    database: Database[dict[str, Any]], url: str, tmp_path: Path, records: tuple[dict[str, Any], ...]
) -> None:
    before = contents(database)
    refused = run("restore", url, tmp_path, packed(*records))
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1), refused.stderr
    assert refused.stderr.startswith(b"restore: the backup is damaged (")
    assert refused.stderr.endswith(b"; nothing was changed\n")
    assert contents(database) == before


def test_of_two_restores_at_once_the_second_is_refused(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    data = dumped(url, tmp_path)
    before = contents(database)
    database.people.delete_many({"n": {"$lt": 500}})
    with half_way(url, tmp_path, data, database) as first:
        second = run("restore", url, tmp_path, data)
        assert second.returncode == 1
        line = second.stderr.decode()
        assert line.count("\n") == 1
        assert line.startswith(f"restore: another restore of database shop (process {first.pid} on ")
        assert line.endswith("UTC) is under way; nothing was changed\n")
        assert database.people.count_documents({}) == 500
        refused = run("dump", url, tmp_path)
        assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
        assert f"another restore of database shop (process {first.pid} " in refused.stderr.decode()
        _, said = first.communicate(data[len(data) // 2 :], timeout=60)
        assert (first.returncode, said) == (0, b"restore: 1,000 documents of database shop\n")
    assert contents(database) == before


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_restore_that_is_interrupted_changes_nothing(
    database: Database[dict[str, Any]], url: str, tmp_path: Path, how: signal.Signals
) -> None:
    data = dumped(url, tmp_path)
    database.people.delete_many({"n": {"$lt": 500}})
    before = contents(database)
    with half_way(url, tmp_path, data, database) as process:
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, b"restore: interrupted; nothing was changed\n")
    assert contents(database) == before
    assert restored(url, tmp_path, data) == []


def test_a_restore_after_one_that_was_killed_clears_up(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    data = dumped(url, tmp_path)
    before = contents(database)
    with half_way(url, tmp_path, data, database) as process:
        process.kill()
        process.wait()
    assert len(database.list_collection_names()) > len(before)
    assert dumped_names(database) == ["empty", "people"]
    age_lock(database, swapping=["people"])
    said = restored(url, tmp_path, data)
    assert said == ["restore: an earlier restore was killed while it swapped; these may be of two backups: people"]
    assert contents(database) == before


def test_a_restore_waits_for_the_lock_of_one_that_was_killed(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    data = dumped(url, tmp_path)
    before = contents(database)
    with half_way(url, tmp_path, data, database) as process:
        process.kill()
        process.wait()
    pipe = subprocess.PIPE
    with subprocess.Popen(command("restore", url, tmp_path), stdin=pipe, stderr=pipe) as waiting:
        assert waiting.stderr
        assert b"gives no sign of life" in waiting.stderr.readline()
        age_lock(database)
        _, said = waiting.communicate(data, timeout=60)
        assert (waiting.returncode, said) == (0, b"restore: 1,000 documents of database shop\n")
    assert contents(database) == before


def test_a_restore_that_was_taken_for_dead_does_not_go_on(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    data = dumped(url, tmp_path)
    with half_way(url, tmp_path, data, database) as first:
        first.send_signal(signal.SIGSTOP)
        age_lock(database)
        assert restored(url, tmp_path, data) == []
        database.people.insert_one({"name": "later"})
        before = contents(database)
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(data[len(data) // 2 :], timeout=60)
        assert (first.returncode, said.count(b"\n")) == (1, 1)
        assert b"nothing was changed" in said
    assert contents(database) == before


def test_what_does_not_fit_a_stricter_schema_is_restored_and_named(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    database.command("collMod", "people", validator=ADULTS)
    database.people.insert_one({"_id": ObjectId("66f1a2b3c4d5e6f7a8b9c0d1"), "name": "Eve", "n": 18})
    database.people.update_one({"name": "Eve"}, {"$unset": {"name": 1}}, bypass_document_validation=True)
    data = dumped(url, tmp_path)
    before = contents(database)
    [said] = restored(url, tmp_path, data)
    assert said.startswith("restore: people: 19 documents don't fit its schema: ")
    assert said.endswith(" (n: minimum), …")
    assert said.count(" (n: minimum)") == 3
    assert contents(database) == before
    assert database.people.options()["validator"] == ADULTS
    database.people.delete_many({"n": {"$lt": 18}})
    data = dumped(url, tmp_path)
    said = restored(url, tmp_path, data)[0]
    assert said == "restore: people: 1 documents don't fit its schema: 66f1a2b3c4d5e6f7a8b9c0d1 (name: required)"


def test_schema_and_indexes_of_today_stay(database: Database[dict[str, Any]], url: str, tmp_path: Path) -> None:
    database.command("collMod", "people", validator={"name": {"$type": "string"}})
    database.people.create_index("old")
    database.people.update_many({"n": {"$lt": 2}}, {"$set": {"card": 7}})
    data = dumped(url, tmp_path)
    database.drop_collection("people")
    assert restored(url, tmp_path, data) == []
    assert database.people.options()["validator"] == {"name": {"$type": "string"}}

    database.command("collMod", "people", validator=ADULTS, validationAction="warn")
    database.people.drop_index("old_1")
    database.people.create_index("n", sparse=True)
    database.people.update_many({}, {"$unset": {"card": 1}})
    database.people.create_index("card", unique=True, sparse=True)
    said = restored(url, tmp_path, data)
    assert said[0].startswith("restore: people: index card_1, which the collection has now, is left out: several ")
    assert said[1] == "restore: people: the schema that the collection has now stays; the backup's is another"
    assert said[2].startswith("restore: people: 18 documents don't fit its schema: ")
    assert len(said) == 3
    options = database.people.options()
    assert (options["validator"], options["validationAction"]) == (ADULTS, "warn")
    assert database.people.index_information().keys() == {"_id_", "name_1", "old_1", "n_1"}


def test_a_user_who_may_only_read_and_write_restores_what_fits(
    database: Database[dict[str, Any]], replica_set: ReplicaSet, tmp_path: Path
) -> None:
    url = replica_set.url_of("plain", "shop")
    database.command("collMod", "people", validator={"name": {"$type": "string"}})
    data = dumped(url, tmp_path)
    before = contents(database)
    assert restored(url, tmp_path, data) == []
    assert contents(database) == before
    assert database.people.options()["validator"] == {"name": {"$type": "string"}}
    database.command("collMod", "people", validator=ADULTS)
    refused = run("restore", url, tmp_path, data)
    assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
    assert b"takes a user with collMod; nothing was changed" in refused.stderr
    assert contents(database) == before


def test_collections_of_every_kind_come_back(database: Database[dict[str, Any]], url: str, tmp_path: Path) -> None:
    german = {"locale": "de", "strength": 1}
    database.create_collection("capped", capped=True, size=4096)
    database.create_collection("german", collation=german)
    database.german.create_index("a")
    database.german.create_index("b", collation={"locale": "simple"})
    database.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
    database.command("create", "kids", viewOn="people", pipeline=[{"$match": {"n": {"$lt": 18}}}])
    long = "l" * (255 - len("shop."))
    for name in ("capped", "german", "clustered", "restoring.mine", long):
        database[name].insert_many([{"n": number} for number in range(20)])
    before = contents(database)
    described = {name: options_and_indexes(database, name) for name in before if name != "kids"}
    saved = run("dump", url, tmp_path)
    assert (saved.returncode, saved.stderr.decode().splitlines()[0]) == (
        0,
        "dump: not in it: view kids; only collections are",
    )
    for name in described:
        database.drop_collection(name)
    assert restored(url, tmp_path, saved.stdout) == []
    assert {name: options_and_indexes(database, name) for name in described} == described
    assert contents(database) == before


def test_a_view_is_not_replaced(database: Database[dict[str, Any]], url: str, tmp_path: Path) -> None:
    data = dumped(url, tmp_path)
    database.drop_collection("empty")
    database.command("create", "empty", viewOn="people", pipeline=[])
    before = contents(database)
    refused = run("restore", url, tmp_path, data)
    assert (refused.returncode, refused.stderr) == (
        1,
        b"restore: empty is a view here, no collection; nothing was changed\n",
    )
    assert contents(database) == before


def test_a_backup_during_which_a_collection_is_replaced_is_none(
    database: Database[dict[str, Any]], url: str, tmp_path: Path
) -> None:
    database.aaa.insert_many([{"data": os.urandom(4096)} for _ in range(200)])  # more than a pipe holds
    database.other.insert_one({})
    pipe = subprocess.PIPE
    with subprocess.Popen(command("dump", url, tmp_path), stdout=pipe, stderr=pipe) as process:
        assert process.stdout
        begin = process.stdout.read(1000)
        database.other.rename("people", dropTarget=True)
        rest, said = process.communicate(timeout=60)
    assert (process.returncode, said.count(b"\n")) == (1, 1)
    assert run("restore", url, tmp_path, begin + rest).returncode == 1


def test_a_stack_that_is_down_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:  # nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"mongodb://127.0.0.1:{taken.getsockname()[1]}/sluice"
        (tmp_path / "url").write_text(url)
        pipe = subprocess.PIPE
        both = [
            subprocess.Popen(command(action, url, tmp_path), stdin=pipe, stdout=pipe, stderr=pipe)
            for action in ("dump", "restore")
        ]
        said = [each.communicate(b"", timeout=60) for each in both]
    assert [each.returncode for each in both] == [1, 1]
    why = "MongoDB can't be reached (is the stack up? ./scripts/up.sh): 127.0.0.1:"
    for action, (out, errors) in zip(("dump", "restore"), said, strict=True):
        (line,) = errors.decode().splitlines()
        assert out == b""
        assert line.startswith(f"{action}: {why}")
        assert "configured" not in line


def test_a_full_disk_is_one_line(database: Database[dict[str, Any]], url: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command("dump", url, tmp_path), stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (1, b"dump: [Errno 28] No space left on device\n")


def options_and_indexes(database: Database[Any], name: str) -> Any:
    """The options with the defaults that the server adds once a schema is changed."""
    checks: dict[str, Any] = {"validationLevel": "strict", "validationAction": "error"}
    return {**checks, **database[name].options()}, list(database[name].list_indexes())


def dumped_names(database: Database[Any]) -> list[str]:
    return sorted(name for name in database.list_collection_names() if not name.startswith("sluice."))
