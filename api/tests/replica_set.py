"""A real three-member replica set for the tests: free ports, a temporary folder, stopped by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
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

    With a `password`, whoever comes needs one, and `root` has this.
    """

    def __init__(self, members: int = 3, *, password: str | None = None) -> None:
        self._mongod = find_mongod()
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-test-rs-"))
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(members)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._password = password
        self._credentials: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"mongodb://{','.join(self.addresses)}/?replicaSet=rs0"

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
        if self._password is not None:
            with self.direct(self.primary()) as primary:  # the first user needs no password, from this machine
                primary.admin.command("createUser", "root", pwd=self._password, roles=["root"])
            self._credentials = {"username": "root", "password": self._password}
        self.wait_until_healthy()

    def start_member(self, address: str) -> None:
        """Start one member, or start it again."""
        port = address.rpartition(":")[2]
        data = self._folder / port
        data.mkdir(exist_ok=True)
        authentication = []
        if self._password is not None:
            key = data / "key"
            key.write_text("key of a test")
            key.chmod(0o600)
            authentication = ["--keyFile", str(key)]
        self._processes[address] = subprocess.Popen(
            [
                self._mongod, "--replSet", "rs0", "--bind_ip", "127.0.0.1", "--port", port, "--dbpath", str(data),
                "--logpath", str(data / "mongod.log"), "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64",
                "--setParameter", "enableTestCommands=1", "--setParameter", "diagnosticDataCollectionEnabled=false",
                "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100", "--nounixsocket",
                *authentication,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, address: str) -> None:
        """SIGKILL one member."""
        self._processes[address].kill()
        self._processes[address].wait()

    def direct(self, address: str) -> MongoClient[dict[str, Any]]:
        """A client of this member alone."""
        return MongoClient(
            f"mongodb://{address}", directConnection=True, serverSelectionTimeoutMS=30_000, **self._credentials
        )

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
