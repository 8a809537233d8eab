"""What a wrong password or a missing right does to a service that runs: said in one line, and never ready."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings.model import Settings
from stack.replica_set import ReplicaSet
from tests.app.conftest import Client

pytestmark = pytest.mark.asyncio

PASSWORD = uuid.uuid4().hex
NOBODY = "66f1a2b3c4d5e6f7a8b9c0d1"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ReplicaSet]:
    """A replica set that asks everybody for a password; one member is enough."""
    replica_set = ReplicaSet(1, auth=True)
    try:
        replica_set.start()
        yield replica_set
    finally:
        replica_set.stop()


class Account:
    """A user of the database for one test, with all rights there."""

    def __init__(self, replica_set: ReplicaSet) -> None:
        self._replica_set = replica_set
        self.name = f"sluice_{uuid.uuid4().hex[:8]}"
        self.command("createUser", pwd=PASSWORD, roles=["dbOwner"])

    def command(self, name: str, **arguments: Any) -> None:
        with self._replica_set.direct(self._replica_set.addresses[0]) as root:
            root[self.name].command(name, self.name, **arguments)

    def url(self, password: str = PASSWORD) -> str:
        address = self._replica_set.addresses[0]
        return f"mongodb://{self.name}:{password}@{address}/?replicaSet=rs0&authSource={self.name}"


@pytest.fixture
def account(guarded: ReplicaSet) -> Account:
    return Account(guarded)


@pytest.fixture
def app_of(settings: Callable[..., Settings], account: Account, driver: str) -> Callable[..., FastAPI]:
    def make(password: str = PASSWORD, min_pool_size: int = 0) -> FastAPI:
        return create_app(
            settings(
                mongodb_url=account.url(password),
                mongodb_driver=driver,
                database_name=account.name,
                min_pool_size=min_pool_size,
                max_pool_size=5,
                heartbeat_frequency_ms=500,
            )
        )

    return make


@asynccontextmanager
async def served(app: FastAPI, client: Client, *, ready: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    async with client(app) as http, app.router.lifespan_context(app):
        if ready:
            await until_ready(http)
        yield http


async def until_ready(http: httpx.AsyncClient, status: int = 200) -> None:
    async with asyncio.timeout(40):
        while (await http.get("/health/ready")).status_code != status:
            await asyncio.sleep(0.02)


async def some_of_everything(http: httpx.AsyncClient, rounds: int = 1) -> Counter[tuple[str, int]]:
    """How often each method was answered with which status."""

    async def ask(method: str, path: str, **more: object) -> tuple[str, int]:
        return method, (await http.request(method, path, **more)).status_code  # type: ignore[arg-type]

    def new() -> dict[str, str]:
        return {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada"}

    answers = []
    for _ in range(rounds):
        answers += await asyncio.gather(
            *(ask("GET", f"/users/{NOBODY}") for _ in range(3)),
            *(ask("GET", "/users") for _ in range(2)),
            *(ask("POST", "/users", json=new()) for _ in range(3)),
            ask("POST", "/users/bulk", json={"users": [new()]}),
            *(ask("PATCH", f"/users/{NOBODY}", json={"age": 1}, headers={"If-Match": "*"}) for _ in range(2)),
            *(ask("DELETE", f"/users/{NOBODY}") for _ in range(2)),
        )
    return Counter(answers)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about requests that failed; none of any may have a traceback."""
    assert not [record for record in caplog.records if record.exc_info]
    return [record.getMessage() for record in caplog.records if record.name == "app.http.middleware"]


async def test_a_wrong_password_is_always_the_services_fault(
    app_of: Callable[..., FastAPI], client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(app_of("wrong", min_pool_size=2), client, ready=False) as http:
        answers = await some_of_everything(http)
        ready = await http.get("/health/ready")
    assert {status for _, status in answers} == {500}, answers
    assert ready.status_code == 503
    lines = said(caplog)
    assert len(lines) == answers.total()
    assert all("MongoDB: 18 AuthenticationFailed: Authentication failed" in line for line in lines), lines[0]
    assert "wrong" not in caplog.text


async def test_a_password_that_is_changed_while_all_goes_well(
    app_of: Callable[..., FastAPI], account: Account, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of(min_pool_size=2)
    async with served(app, client) as http:
        await some_of_everything(http)
        account.command("updateUser", pwd=uuid.uuid4().hex)
        # Who is in stays in: only new connections need the new password. A lost one brings it to light.
        for pool in app.state.sluice._connected.pools.values():
            for connection in list(pool.conns):
                closing = connection.close_conn(None)
                if closing is not None:
                    await closing
        caplog.clear()
        async with asyncio.timeout(30):
            while {status for _, status in (await some_of_everything(http))} != {500}:
                pass
        await until_ready(http, 503)
        answers = Counter[tuple[str, int]]()
        readiness = set()
        for _ in range(2):
            answers += await some_of_everything(http)
            readiness.add((await http.get("/health/ready")).status_code)
        assert {status for _, status in answers} == {500}, answers
        assert readiness == {503}
        assert all("18 AuthenticationFailed" in line for line in said(caplog)), said(caplog)
        account.command("updateUser", pwd=PASSWORD)
        await until_ready(http)
        assert {status for _, status in await some_of_everything(http)} == {200, 201, 404}


async def test_rights_that_are_taken_away_while_all_goes_well(
    app_of: Callable[..., FastAPI], account: Account, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(app_of(), client) as http:
        await some_of_everything(http)
        caplog.clear()
        account.command("revokeRolesFromUser", roles=["dbOwner"])
        answers = await some_of_everything(http, 5)
        assert {status for _, status in answers} == {500}, answers
        await until_ready(http, 503)
        assert {(await http.get("/health/ready")).status_code for _ in range(20)} == {503}
        lines = said(caplog)
        assert len(lines) == answers.total()
        assert all("MongoDB: 13 Unauthorized: not authorized on" in line for line in lines), lines[0]
        assert "example.org" not in "".join(lines)
        account.command("grantRolesToUser", roles=["dbOwner"])
        await until_ready(http)
        assert {status for _, status in await some_of_everything(http)} == {200, 201, 404}


async def test_a_user_who_is_removed_while_all_goes_well(
    app_of: Callable[..., FastAPI], account: Account, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(app_of(), client) as http:
        await some_of_everything(http)
        caplog.clear()
        account.command("dropUser")
        await some_of_everything(http)
        await until_ready(http, 503)
        answers = await some_of_everything(http, 5)
        assert {status for _, status in answers} == {500}, answers
        assert (await http.get("/health/ready")).status_code == 503
        assert said(caplog)


async def test_an_operation_that_alone_is_not_allowed_makes_the_service_no_less_ready(
    app_of: Callable[..., FastAPI], client: Client
) -> None:
    app = app_of()
    async with served(app, client) as http:
        sluice = app.state.sluice

        async def ask() -> None:
            with sluice.operation("secrets", "find_one"):
                await sluice.database.client["admin"]["secrets"].find_one({})

        for _ in range(3):
            with pytest.raises(Exception, match="not authorized"):
                await ask()
            readiness = set()
            for _ in range(10):
                readiness.add((await http.get("/health/ready")).status_code)
                await asyncio.sleep(0.05)
            assert readiness == {200}
