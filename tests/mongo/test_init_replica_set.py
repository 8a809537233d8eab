"""init_replica_set.py on members with a key file, as the stacks run them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from stack.mongod import REPLICA_SET, find_mongod, mongod_command

ROOT = Path(__file__).resolve().parents[2]
Document = dict[str, Any]


class Member:
    """One mongod, a replica set of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._folder = folder
        self.secrets = folder / "secrets"
        subprocess.run([sys.executable, ROOT / "mongo/make_secrets.py", self.secrets], check=True)
        (folder / "data").mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, in_set: bool = True) -> None:
        command = mongod_command(
            find_mongod(),
            int(self.address.rpartition(":")[2]),
            data=self._folder / "data",
            log=self._folder / "mongod.log",
            cache_gb=0.25,
            shutdown_ms=100,
            replica_set=REPLICA_SET if in_set else None,
            key_file=self.secrets / "mongo_key" if in_set else None,
            parameters={"diagnosticDataCollectionEnabled": "false", "enableTestCommands": 1},
        )
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def initiate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "mongo/init_replica_set.py")]
        given = ["--hosts", self.address, "--secrets", str(self.secrets), "--database", "shop", *arguments]
        return subprocess.run(command + given, capture_output=True, text=True, timeout=60)

    def client(self, user: str | None = None) -> MongoClient[Document]:
        login: dict[str, Any] = (
            {"username": user, "password": self.password(user), "authSource": "admin"} if user else {}
        )
        return MongoClient(self.address, directConnection=True, serverSelectionTimeoutMS=10_000, **login)

    def password(self, user: str) -> str:
        return (self.secrets / f"{user}_password").read_text()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    member = Member(tmp_path)
    yield member
    member.stop()


def test_a_member_that_does_not_answer_is_one_line(member: Member) -> None:
    host, _, port = member.address.rpartition(":")
    with socket.create_server((host, int(port))):
        done = member.initiate("--seconds", "1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{member.address} does not become part of rs0: " in line
    assert "Topology" not in line


def test_users_may_do_their_work_and_nothing_else(member: Member) -> None:
    member.start()
    done = member.initiate()
    assert (done.returncode, done.stderr) == (0, "")
    with member.client("app") as app:
        app.shop.users.insert_one({"name": "a"})
        app.shop.users.create_index("name")
        app.shop.command("collMod", "users", validationLevel="moderate")
        for forbidden in (
            lambda: app.other.users.insert_one({}),
            lambda: app.admin.command("serverStatus"),
            lambda: app.admin.command("usersInfo", 1),
        ):
            with pytest.raises(OperationFailure, match="not authorized"):
                forbidden()
    with member.client("monitoring") as monitoring:
        monitoring.admin.command("serverStatus")
        monitoring.admin.command("replSetGetStatus")
        list(monitoring.admin.aggregate([{"$currentOp": {"idleConnections": True, "allUsers": True}}]))
        with pytest.raises(OperationFailure, match="not authorized"):
            monitoring.shop.users.find_one()


def test_again_after_a_restart_changes_nothing_but_what_is_asked(member: Member) -> None:
    member.start()
    assert member.initiate().returncode == 0
    first = settings(member)
    assert (first["electionTimeoutMillis"], first["catchUpTimeoutMillis"]) == (3_000, 1_000)
    member.stop()
    member.start()
    assert member.initiate().returncode == 0
    assert settings(member) == first
    assert member.initiate("--election-timeout", "4000").returncode == 0
    assert settings(member)["electionTimeoutMillis"] == 4_000
    assert member.initiate().returncode == 0
    assert settings(member)["electionTimeoutMillis"] == 4_000


@pytest.mark.parametrize("command", ["createRole", "updateUser", "replSetReconfig"])
def test_a_primary_that_is_none_any_more_is_no_reason_to_fail(member: Member, command: str) -> None:
    member.start()
    assert member.initiate().returncode == 0
    with member.client("admin") as admin:
        failing = {"failCommands": [command], "errorCode": 10107}  # not primary
        admin.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=failing)
    done = member.initiate("--election-timeout", "4000")
    assert (done.returncode, done.stderr) == (0, "")
    assert settings(member)["electionTimeoutMillis"] == 4_000


def test_a_first_user_that_the_image_made_will_do(member: Member) -> None:
    member.start(in_set=False)
    with member.client() as client:
        roles = [{"role": "root", "db": "admin"}]
        client.admin.command("createUser", "admin", pwd=member.password("admin"), roles=roles)
    member.stop()
    member.start()
    done = member.initiate()
    assert (done.returncode, done.stderr) == (0, "")
    with member.client("app") as app:
        app.shop.users.insert_one({"name": "a"})


def test_a_member_that_is_not_there_is_one_clear_line(member: Member) -> None:
    done = member.initiate("--seconds", "0.5")
    assert done.returncode == 1
    assert done.stderr.startswith(f"init_replica_set: {member.address} does not become part of rs0: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["a.b", "a b", "a$b", "", "x" * 64])
def test_a_name_that_no_database_may_have_is_one_clear_line(tmp_path: Path, name: str) -> None:
    program = [sys.executable, str(ROOT / "mongo/init_replica_set.py"), "--hosts=h:1", f"--secrets={tmp_path}"]
    done = subprocess.run([*program, f"--database={name}"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"init_replica_set: DATABASE_NAME={name!r}: allowed is 1 to 63 characters, none of")


def test_secrets_are_made_once_for_the_owner_alone(member: Member) -> None:
    before = {path.name: path.read_text() for path in member.secrets.iterdir()}
    assert before.keys() == {"mongo_key", "admin_password", "app_password", "monitoring_password"}
    subprocess.run([sys.executable, ROOT / "mongo/make_secrets.py", member.secrets], check=True)
    assert {path.name: path.read_text() for path in member.secrets.iterdir()} == before
    assert {path.stat().st_mode & 0o777 for path in member.secrets.iterdir()} == {0o400}
    assert member.secrets.stat().st_mode & 0o777 == 0o700


def settings(member: Member) -> Document:
    with member.client("admin") as admin:
        found: Document = admin.admin.command("replSetGetConfig")["config"]["settings"]
        return found
