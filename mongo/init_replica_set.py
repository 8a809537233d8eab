"""Initiate the replica set and its least-privilege users. Idempotent: run it at every start.

Users, all in `admin`: `admin` (root; for this program and for people), `app` (reads and writes one database, and
may change its collections' validators), `monitoring` (`clusterMonitor`).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

Client = MongoClient[dict[str, Any]]

AUTHENTICATION_FAILED = 18
ALREADY_INITIALIZED = 23
USER_EXISTS = 51003
ROLE_EXISTS = 51002
ROLE = "sluiceApplication"
DATABASE = re.compile(r'[^/\\. "$*<>:|?\x00-\x1f]{1,63}')
ALLOWED = r'1 to 63 characters, none of / \ . " $ * < > : | ? and space'

FIRST_ELECTION_MS = 1_500
"""Members wait that long before they stand for election; at the first start nobody is there to wait for."""
ELECTION_MS = 3_000
"""From then on. MongoDB's own 10 s are for members that are far apart: as long as that, nothing can be written. These
are neighbours; what keeps one silent for 3 s (a frozen machine, a stalled disk) keeps its clients waiting, too."""
HEARTBEAT_MS = 1_000
"""Two may get lost before an election; MongoDB's own is 2 s."""
CATCH_UP_MS = 1_000
"""How long a new primary looks for writes that it hasn't got. By MongoDB's default it waits until it has heard of every
member, one that is frozen too, and takes no writes meanwhile; what a majority has confirmed it has in any case."""


@dataclass(frozen=True, kw_only=True)
class ReplicaSet:
    """A set to be: `hosts` are `host:port` as the members and every client reach each other."""

    name: str
    hosts: Sequence[str]
    secrets: Path
    database: str
    seconds: float = 60
    election_ms: int | None = None
    """How long members miss a primary before they elect another; None leaves it as it is, at first `ELECTION_MS`."""

    def url(self, user: str, database: str = "") -> str:
        """The connection string of a user, for a secret file."""
        password = quote(self._password(user), safe="")
        options = f"replicaSet={self.name}&authSource=admin"
        return f"mongodb://{user}:{password}@{','.join(self.hosts)}/{quote(database, safe='')}?{options}"

    def write_urls(self, folder: Path) -> None:
        """The service's two connection strings, each a file that only its owner may read."""
        urls = {"mongodb_url": self.url("app", self.database), "monitoring_url": self.url("monitoring")}
        for name, url in urls.items():
            draft = folder / f".{name}.{os.getpid()}"
            draft.touch(mode=0o600)
            draft.write_text(url)
            draft.replace(folder / name)

    def initiate(self) -> None:
        """Bring the set and its users to be. Raises `TimeoutError` when it takes longer than `seconds`."""
        deadline = time.monotonic() + self.seconds
        first = self.hosts[0]
        _retry(lambda: self._initiate_on(first), deadline, f"{first} does not become part of {self.name}")
        # Until it has settled, a slow machine loses its primary now and then.
        _retry(self._complete, deadline, f"{self.name} elects no primary", AutoReconnect)

    def _complete(self) -> None:
        primary = self._primary()
        self._create_admin(primary)
        with self._direct(primary, "admin") as client:
            self._create_users(client)
            self._settle(client)

    def _initiate_on(self, host: str) -> None:
        with self._as_far_as_known(host) as client:
            initiate(client, self.name, self.hosts, {"electionTimeoutMillis": FIRST_ELECTION_MS})

    def _primary(self) -> str:
        """The member that accepts writes. Where all have just started, one is asked to stand, which saves 10 s."""
        answers: dict[str, dict[str, Any]] = {}
        for host in self.hosts:
            with suppress(AutoReconnect), self._direct(host) as client:
                answers[host] = client.admin.command("hello")
        for host, answer in answers.items():
            if answer.get("isWritablePrimary"):
                return host
        if not any(answer.get("primary") for answer in answers.values()):
            for host in answers:
                with suppress(PyMongoError), self._direct(host, "admin") as client:
                    client.admin.command("replSetStepUp")
                    break
        raise AutoReconnect("no member is primary yet")

    def _create_admin(self, primary: str) -> None:
        """The first user, by the server's localhost exception, unless the image made it."""
        with self._as_far_as_known(primary) as client:
            if client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]:
                return
            _create_user(client, "admin", self._password("admin"), [{"role": "root", "db": "admin"}])

    def _as_far_as_known(self, host: str) -> Client:
        """As the first user where it exists, else as nobody."""
        client = self._direct(host, "admin")
        try:
            client.admin.command("ping")
        except OperationFailure as error:
            client.close()
            if error.code != AUTHENTICATION_FAILED:
                raise
            return self._direct(host)
        return client

    def _create_users(self, client: Client) -> None:
        role: dict[str, Any] = {
            "privileges": [{"resource": {"db": self.database, "collection": ""}, "actions": ["collMod"]}],
            "roles": [{"role": "readWrite", "db": self.database}],
        }
        try:
            client.admin.command("createRole", ROLE, **role)
        except OperationFailure as error:
            if error.code != ROLE_EXISTS:
                raise
            client.admin.command("updateRole", ROLE, **role)
        _create_user(client, "app", self._password("app"), [{"role": ROLE, "db": "admin"}])
        _create_user(client, "monitoring", self._password("monitoring"), [{"role": "clusterMonitor", "db": "admin"}])

    def _settle(self, client: Client) -> None:
        """Leave the haste of the first start, and do as the caller asked."""
        config = client.admin.command("replSetGetConfig")["config"]
        settings = config["settings"]
        wanted = dict(settings)
        if settings["electionTimeoutMillis"] == FIRST_ELECTION_MS:
            wanted |= {
                "electionTimeoutMillis": ELECTION_MS,
                "heartbeatIntervalMillis": HEARTBEAT_MS,
                "catchUpTimeoutMillis": CATCH_UP_MS,
            }
        if self.election_ms:
            wanted["electionTimeoutMillis"] = self.election_ms
        if wanted != settings:
            config["settings"] = wanted
            client.admin.command("replSetReconfig", {**config, "version": config["version"] + 1})

    def _direct(self, host: str, user: str | None = None) -> Client:
        credentials: dict[str, Any] = (
            {"username": user, "password": self._password(user), "authSource": "admin"} if user else {}
        )
        return MongoClient(f"mongodb://{host}/", directConnection=True, serverSelectionTimeoutMS=1000, **credentials)

    def _password(self, user: str) -> str:
        return (self.secrets / f"{user}_password").read_text().strip()


def initiate(client: Client, name: str, hosts: Sequence[str], settings: dict[str, int]) -> None:
    """Make the server that the client talks to, one of the `hosts`, a member of a set of all; unless it already is."""
    if client.admin.command("hello").get("setName") == name:
        return
    members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
    try:
        client.admin.command("replSetInitiate", {"_id": name, "members": members, "settings": settings})
    except OperationFailure as error:
        if error.code != ALREADY_INITIALIZED:
            raise


def _create_user(client: Client, name: str, password: str, roles: list[dict[str, str]]) -> None:
    try:
        client.admin.command("createUser", name, pwd=password, roles=roles)
    except OperationFailure as error:
        if error.code != USER_EXISTS:
            raise
        client.admin.command("updateUser", name, pwd=password, roles=roles)


def _retry(attempt: Callable[[], None], deadline: float, what: str, passing: type[PyMongoError] = PyMongoError) -> None:
    while True:
        try:
            attempt()
            return
        except passing as error:
            if time.monotonic() > deadline:
                reason = str(error).partition(", Timeout:")[0]  # without the driver's topology
                raise TimeoutError(f"{what}: {reason}") from error
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", required=True, help="host:port of every member, with commas")
    parser.add_argument("--secrets", required=True, type=Path, help="folder that make_secrets.py has filled")
    parser.add_argument("--urls", type=Path, metavar="FOLDER", help="where to put the connection strings, if anywhere")
    parser.add_argument("--name", default="rs0", help="of the replica set (default: %(default)s)")
    parser.add_argument("--database", default="sluice", help="the application's (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="to wait at most (default: %(default)s)")
    parser.add_argument(
        "--election-timeout",
        type=int,
        metavar="MS",
        help=f"how long members miss a primary before they elect another (default: as it is; at first {ELECTION_MS})",
    )
    given = parser.parse_args()
    if not DATABASE.fullmatch(given.database):
        print(f"init_replica_set: DATABASE_NAME={given.database!r}: allowed is {ALLOWED}", file=sys.stderr)
        return 1
    replica_set = ReplicaSet(
        name=given.name,
        hosts=given.hosts.split(","),
        secrets=given.secrets,
        database=given.database,
        seconds=given.seconds,
        election_ms=given.election_timeout,
    )
    try:
        replica_set.initiate()
        if given.urls:
            replica_set.write_urls(given.urls)
    except (TimeoutError, PyMongoError, OSError) as error:
        print(f"init_replica_set: {error}", file=sys.stderr)
        return 1
    print(f"replica set {given.name} is ready: {given.hosts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
