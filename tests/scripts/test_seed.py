"""seed.sh on a real server: the same people every time, and only those who are missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection

from app.users.model import NewUser, User
from scripts.seed.people import People
from stack.replica_set import ReplicaSet

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "seed.sh"
Document = dict[str, Any]
Seed = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server() -> Iterator[ReplicaSet]:
    server = ReplicaSet(members=1)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def users(server: ReplicaSet) -> Iterator[Collection[Document]]:
    """The users of a database that nobody has prepared."""
    name = f"seed_{uuid.uuid4().hex[:8]}"
    with MongoClient[Document](server.url, tz_aware=True) as client:
        yield client[name]["users"]
        client.drop_database(name)


@pytest.fixture
def environment(users: Collection[Document], tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MONGODB_URL")}
    own = {"SLUICE_PYTHON": sys.executable, "SLUICE_HOME": str(tmp_path), "DATABASE_NAME": users.database.name}
    return kept | own


@pytest.fixture
def seed(environment: dict[str, str], server: ReplicaSet, tmp_path: Path) -> Seed:
    def run(*arguments: object, url: str | None = server.url, **more: str) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments] + (["--url", url] if url else [])
        return subprocess.run(
            [SCRIPT, *given], cwd=tmp_path, env=environment | more, capture_output=True, text=True, timeout=60
        )

    return run


def everybody(users: Collection[Document]) -> dict[ObjectId, Document]:
    return {document["_id"]: document for document in users.find()}


def test_a_fresh_database_is_prepared_and_filled(seed: Seed, users: Collection[Document]) -> None:
    ran = seed("--users", 250, "--batch", 100)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"^Added 250 users in [\d.]+ s \([\d,]+ a second\)\.$", ran.stdout, re.MULTILINE)
    people = everybody(users)
    assert len(people) == 250
    assert all(User.of(document).version == 1 for document in people.values())
    assert len({document["email"] for document in people.values()}) == 250
    assert users.options()["validator"]["$jsonSchema"]["required"]
    assert users.index_information()["email"]["unique"]


def test_the_connection_string_names_the_database_as_it_does_for_the_service(
    seed: Seed, server: ReplicaSet, users: Collection[Document]
) -> None:
    url = server.url.replace("/?", f"/{users.database.name}?")
    assert users.database.name in url
    assert seed("--users", 10, url=url, DATABASE_NAME="").returncode == 0
    assert len(everybody(users)) == 10


def test_the_same_again_changes_nothing_and_says_so(seed: Seed, users: Collection[Document]) -> None:
    seed("--users", 120)
    before = everybody(users)
    ran = seed("--users", 120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Nothing changed: 120 of these users were there already." in ran.stdout
    assert everybody(users) == before


def test_more_users_and_missing_ones_are_added_to_those_who_are_there(seed: Seed, users: Collection[Document]) -> None:
    seed("--users", 100)
    before = everybody(users)
    changed, lost = list(before)[:2]
    users.update_one({"_id": changed}, {"$set": {"name": "Somebody Else"}})
    users.delete_one({"_id": lost})
    ran = seed("--users", 150)
    assert re.search(r"Added 51 users in .*; 99 were there already\.", ran.stdout)
    after = everybody(users)
    assert len(after) == 150
    assert after[changed]["name"] == "Somebody Else"
    assert after[lost] == before[lost]


def test_an_interrupted_run_is_continued(
    environment: dict[str, str], seed: Seed, server: ReplicaSet, users: Collection[Document]
) -> None:
    command = [str(SCRIPT), "--users", "20000", "--batch", "50", "--url", server.url]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        while users.estimated_document_count() < 200:
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=30)
    assert first.returncode == 130
    assert errors == "seed.sh: stopped; the same command continues\n"
    done = everybody(users)
    assert 200 <= len(done) < 20_000
    total = len(done) + 300
    ran = seed("--users", total)
    assert "Added 300 users in" in ran.stdout
    assert everybody(users).keys() == {People(1).id(number) for number in range(total)}


def test_several_seeds_live_together(seed: Seed, users: Collection[Document]) -> None:
    assert seed("--users", 100).returncode == 0
    assert "Added 100 users" in seed("--users", 100, "--seed", 2).stdout
    assert users.count_documents({}) == 200


def test_a_taken_address_is_left_out_and_said(seed: Seed, users: Collection[Document]) -> None:
    seed("--users", 10)
    users.update_one({"_id": People(1).id(3)}, {"$set": {"email": People(1).document(12)["email"]}})
    ran = seed("--users", 20)
    assert ran.returncode == 0
    assert "1 were left out: other users have their e-mail addresses." in ran.stdout
    assert re.search(r"Added 9 users in .*; 10 were there already\.", ran.stdout)


def test_two_at_once_add_everybody_once(
    environment: dict[str, str], server: ReplicaSet, users: Collection[Document]
) -> None:
    command = [str(SCRIPT), "--users", "2000", "--batch", "100", "--url", server.url]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert users.count_documents({}) == 2000


def test_the_running_stack_comes_before_the_environment(
    seed: Seed, server: ReplicaSet, users: Collection[Document], tmp_path: Path
) -> None:
    assert "Added 5 users" in seed("--users", 5, url=None, MONGODB_URL=server.url).stdout
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mongodb_url").write_text(server.url + "\n")
    assert "Added 5 users" in seed("--users", 10, url=None, MONGODB_URL="mongodb://nowhere.invalid/").stdout
    assert users.count_documents({}) == 10


def test_the_env_file_of_another_folder_does_not_matter(seed: Seed, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('DATABASE_NAME="another\n')
    assert "Added 5 users" in seed("--users", 5).stdout


def test_the_progress_bar_is_for_terminals_only(seed: Seed, environment: dict[str, str], server: ReplicaSet) -> None:
    assert "━" not in "".join(seed("--users", 5).stderr)
    typed = ["script", "-qec", f"{SCRIPT} --users 400 --batch 100 --url '{server.url}'", "/dev/null"]
    shown = subprocess.run(typed, env=environment | {"TERM": "xterm"}, capture_output=True, text=True).stdout
    assert "━" in shown
    assert "400/400" in shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mongodb://app:geheim@127.0.0.1:1/?nonsense=1", "option nonsense is unknown"),
        ("mongodb:/app:geheim@h", "allowed is mongodb://"),
        ("mongodb://app:geheim@127.0.0.1:1/?directConnection=true", "can't be reached"),
    ],
)
def test_a_url_that_does_not_work_is_one_clear_line_without_the_password(seed: Seed, url: str, words: str) -> None:
    ran = seed("--users", 5, url=url)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert words in ran.stderr
    assert "geheim" not in ran.stdout + ran.stderr


def test_without_any_database_it_says_what_to_do(seed: Seed) -> None:
    ran = seed("--users", 5, url=None)
    assert ran.returncode == 1
    assert "./scripts/up.sh" in ran.stderr


def test_without_the_virtual_environment_it_says_what_to_do(seed: Seed, tmp_path: Path) -> None:
    missing = str(tmp_path / "venv/bin/python")
    ran = seed("--users", 5, SLUICE_PYTHON=missing)
    assert (ran.returncode, ran.stderr) == (1, f"seed.sh: {missing} is missing: run ./scripts/up.sh first\n")
    assert seed("--help", url=None, SLUICE_PYTHON=missing).returncode == 0


def test_help_says_which_database_is_filled(seed: Seed) -> None:
    said = " ".join(seed("--help", url=None).stdout.split())
    assert "--url, else that of the stack (in containers if they run, else the native one below SLUICE_HOME)" in said


@pytest.mark.parametrize(
    "arguments", [[], ["--users", "0"], ["--users", "many"], ["--users", "5", "--seed", "-1"], ["--users", "5", "x"]]
)
def test_wrong_usage_ends_with_2(seed: Seed, arguments: list[str]) -> None:
    ran = seed(*arguments)
    assert ran.returncode == 2
    assert "usage: seed.sh" in ran.stderr


def test_a_person_depends_on_the_seed_and_the_number_alone() -> None:
    in_order = [People(7).document(number) for number in range(50)]
    people = People(7)
    assert [people.document(number) for number in reversed(range(50))] == in_order[::-1]
    assert [people.id(number) for number in range(50)] == [person["_id"] for person in in_order]
    assert People(8).document(0)["_id"] != in_order[0]["_id"]


def test_everybody_would_be_accepted_by_the_service() -> None:
    people = People(1)
    for document in map(people.document, range(2_000)):
        given = {field: document[field] for field in NewUser.model_fields}
        assert NewUser.model_validate(given).model_dump() == given  # as it stands: lower case, no blanks around
        assert document["created_at"].tzinfo is UTC
        assert document["created_at"].microsecond % 1000 == 0
        assert document["_id"].generation_time == document["created_at"].replace(microsecond=0)


def test_people_differ_as_real_ones_do() -> None:
    people = [People(1).document(number) for number in range(500)]
    assert len({person["name"] for person in people}) > 450
    assert len({person["city"] for person in people}) > 100
    assert len({person["age"] for person in people}) > 40
    assert {len(person["tags"]) for person in people} >= {0, 1, 2, 3}
    assert any(person["age"] is None for person in people)
