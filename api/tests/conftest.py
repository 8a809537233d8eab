"""Fixtures on real servers; every behaviour of the pool core runs on both drivers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from sluice import Options, Slot, Sluice
from stack.replica_set import ReplicaSet


@pytest.fixture(scope="session")
def _replica_set() -> Iterator[ReplicaSet]:
    replica_set = ReplicaSet()
    try:
        replica_set.start()
        yield replica_set
    finally:
        replica_set.stop()


@pytest.fixture
def replica_set(_replica_set: ReplicaSet) -> Iterator[ReplicaSet]:
    """The healthy replica set; what a test breaks is mended after it."""
    yield _replica_set
    _replica_set.revive()
    for address in _replica_set.addresses:
        with _replica_set.direct(address) as client:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.fixture(params=["pymongo", "motor"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class OpenSluice(Protocol):
    def __call__(self, *, wait: bool = True, **changes: Any) -> Awaitable[Sluice]: ...


@pytest.fixture
def options(replica_set: ReplicaSet, driver: str) -> Options:
    return Options(
        url=replica_set.url,
        database=f"test_{uuid.uuid4().hex[:8]}",
        driver=driver,  # type: ignore[arg-type]
        min_pool_size=0,
        heartbeat_frequency=0.5,
    )


@pytest.fixture
async def open_sluice(options: Options, tmp_path: Path) -> AsyncIterator[OpenSluice]:
    """Opens a `Sluice` with changed options, on a database of its own; waits until it is ready unless told not to."""
    async with AsyncExitStack() as stack:

        async def open_one(*, wait: bool = True, **changes: Any) -> Sluice:
            sluice = Sluice(replace(options, **changes), Slot.claim(tmp_path))
            await sluice.open()
            stack.push_async_callback(sluice.close)
            if wait:
                await until(lambda: sluice.ready)
            return sluice

        yield open_one


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until the condition holds. Raises `TimeoutError` with the condition's name."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError as error:
        raise TimeoutError(f"not within {seconds} s: {condition}") from error
