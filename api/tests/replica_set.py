"""A real three-member replica set for the tests: free ports, a temporary folder, stopped by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

ROOT = Path(__file__).resolve().parents[2]
ELECTION_MS = 1000


def find_mongod() -> str:
    """`SLUICE_MONGOD`, the one that scripts/test.sh installs, or one on PATH. Raises `FileNotFoundError`."""
    for candidate in (os.environ.get("SLUICE_MONGOD"), ROOT / ".sluice/bin/mongod", shutil.which("mongod")):
        if candidate and Path(candidate).is_file():
            return str(candidate)
    raise FileNotFoundError("no mongod: ./scripts/test.sh installs one, or set SLUICE_MONGOD")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


class ReplicaSet:
    """Members are numbered from 0 and known by `host:port`. Test commands (`failCommand`) are on.

    With `auth` everybody needs a name and a password: `root`, which `start` makes, and whom `create_user` adds.
    """

    def __init__(self, members: int = 3, *, auth: bool = False) -> None:
        self._mongod = find_mongod()
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-test-rs-"))
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(members)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._login: dict[str, str] = {}
        self._options: list[str] = []
        if auth:
            key = self._folder / "key"
            key.write_text("sluice")
            key.chmod(0o400)
            self._options = ["--keyFile", str(key)]

    @property
    def url(self) -> str:
        return f"mongodb://{','.join(self.addresses)}/?replicaSet=rs0"

    def url_of(self, user: str, database: str = "") -> str:
        """The connection string of a user, whose password is its name."""
        return f"mongodb://{user}:{user}@{','.join(self.addresses)}/{database}?replicaSet=rs0&authSource=admin"

    def create_user(self, name: str, *roles: dict[str, str], privileges: Sequence[dict[str, Any]] = ()) -> None:
        """Its password is its name."""
        with self.direct(self.primary()) as client:
            given: list[str | dict[str, str]] = list(roles)
            if privileges:
                client.admin.command("createRole", f"role of {name}", privileges=list(privileges), roles=[])
                given.append(f"role of {name}")
            client.admin.command("createUser", name, pwd=name, roles=given)

    def start(self) -> None:
        """Start every member, initiate the set, wait for a primary."""
        for address in self.addresses:
            self.start_member(address)
        for address in self.addresses:
            with self.direct(address) as member:
                member.admin.command("ping")
        with self.direct(self.addresses[0]) as first:
            first.admin.command(
                {
                    "replSetInitiate": {
                        "_id": "rs0",
                        "members": [{"_id": number, "host": host} for number, host in enumerate(self.addresses)],
                        "settings": {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 200},
                    }
                }
            )
        if self._options:
            self._create_root()
        self.wait_until_healthy()

    def _create_root(self) -> None:
        """By the server's localhost exception: whom nobody knows yet may ask `hello`, and make the first user."""
        with self.direct(self.primary()) as client:
            client.admin.command("createUser", "root", pwd="root", roles=["root"])  # noqa: S106
        self._login = {"username": "root", "password": "root", "authSource": "admin"}

    def start_member(self, address: str) -> None:
        """Start one member, or start it again."""
        port = address.rpartition(":")[2]
        data = self._folder / port
        data.mkdir(exist_ok=True)
        self._processes[address] = subprocess.Popen(
            [
                self._mongod, "--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", port, "--dbpath", str(data),
                "--logpath", str(data / "mongod.log"), "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64",
                "--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false",
                "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100", "--nounixsocket",
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, address: str) -> None:
        """SIGKILL one member."""
        self._processes[address].kill()
        self._processes[address].wait()

    def direct(self, address: str) -> MongoClient[dict[str, Any]]:
        """A client of this member alone."""
        login: Any = self._login
        return MongoClient(f"mongodb://{address}", directConnection=True, serverSelectionTimeoutMS=30_000, **login)

    def primary(self) -> str:
        """Wait for a member that accepts writes; its address."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            for address in self.addresses:
                if self._processes[address].poll() is not None:
                    continue
                try:
                    with self.direct(address) as client:
                        if client.admin.command("hello")["isWritablePrimary"]:
                            return address
                except PyMongoError:
                    continue
            time.sleep(0.05)
        raise TimeoutError("the replica set has no primary")

    def wait_until_healthy(self) -> None:
        """Wait for a primary that has every other member as a secondary."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            with self.direct(self.primary()) as client:
                states = [member["stateStr"] for member in client.admin.command("replSetGetStatus")["members"]]
            if sorted(states) == ["PRIMARY", *["SECONDARY"] * (len(self.addresses) - 1)]:
                return
            time.sleep(0.05)
        raise TimeoutError(f"the replica set is not healthy: {states}")

    def revive(self) -> None:
        """Start again whatever was killed, and wait until all is well."""
        for address, process in self._processes.items():
            if process.poll() is not None:
                self.start_member(address)
        self.wait_until_healthy()

    def stop(self) -> None:
        """End every member and remove their data."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        shutil.rmtree(self._folder)
