"""A replica set that comes and goes, for tests and benchmark: free ports, a temporary folder, stopped by process id."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from mongo.init_replica_set import initiate
from stack.free_ports import free_ports
from stack.mongod import REPLICA_SET, find_mongod, mongod_command

SETTINGS = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200}


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
        self._key_file: Path | None = None
        if auth:
            self._key_file = self._folder / "key"
            self._key_file.write_text("sluice")
            self._key_file.chmod(0o400)

    @property
    def url(self) -> str:
        return f"mongodb://{','.join(self.addresses)}/?replicaSet={REPLICA_SET}"

    def url_of(self, user: str, database: str = "") -> str:
        """The connection string of a user, whose password is its name."""
        return (
            f"mongodb://{user}:{user}@{','.join(self.addresses)}/{database}?replicaSet={REPLICA_SET}&authSource=admin"
        )

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
            initiate(first, REPLICA_SET, self.addresses, SETTINGS)
        if self._key_file:
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
        command = mongod_command(
            self._mongod,
            int(port),
            data=data,
            log=data / "mongod.log",
            cache_gb=0.25,
            shutdown_ms=100,
            key_file=self._key_file,
            parameters={"enableTestCommands": 1, "diagnosticDataCollectionEnabled": "false"},
        )
        self._processes[address] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self, address: str) -> None:
        """SIGKILL one member."""
        self._processes[address].kill()
        self._processes[address].wait()

    def freeze(self, address: str) -> None:
        """Let one member hang, until it's thawed, or killed."""
        self._processes[address].send_signal(signal.SIGSTOP)

    def thaw(self, address: str) -> None:
        self._processes[address].send_signal(signal.SIGCONT)

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
