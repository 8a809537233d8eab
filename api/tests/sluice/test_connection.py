"""PyMongo's connections, which send and receive without tasks: every way in which a wait for an answer ends."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
import uvloop
from pymongo import AsyncMongoClient, CursorType
from pymongo.errors import AutoReconnect, ConnectionFailure, NetworkTimeout, ProtocolError, PyMongoError

from sluice import Options, Sluice
from sluice.drivers.pymongo.pool import AsyncPool
from stack.free_ports import free_ports
from stack.mongod import find_mongod, mongod_command
from stack.replica_set import ReplicaSet
from tests.conftest import OpenSluice, until
from tests.sluice.relay import HEADER, Relay, relay_to
from tests.sluice.support import fail, held, quick, slow, total, with_one_document

Ask = Callable[[Sluice], Coroutine[Any, Any, object]]
ONCE: dict[str, object] = {"retryReads": False, "retryWrites": False}


@pytest.fixture
def driver() -> str:
    return "pymongo"


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy


async def insert_one(sluice: Sluice) -> object:
    return await sluice.collection("others").insert_one({})


async def find(sluice: Sluice) -> object:
    found = await sluice.find("slow", {"_id": 1})
    return found[0] if found else None


async def find_all(sluice: Sluice) -> object:
    return await sluice.collection("slow").find({}).to_list()


async def slow_find(sluice: Sluice, seconds: float) -> object:
    return await sluice.find("slow", {"$where": f"sleep({int(seconds * 1000)}) || true"})


QUERIES = [quick, find]
"""The driver's way, and the one past its machinery."""


def pool_in_use(sluice: Sluice) -> AsyncPool:
    assert sluice._connected is not None
    pools: list[Any] = [pool for pool in sluice._connected.pools.values() if pool.tracker.taken]
    assert len(pools) == 1
    assert isinstance(pools[0], AsyncPool)
    return pools[0]


@contextmanager
def tasks_made() -> Iterator[list[str]]:
    """The tasks that whoever asks makes meanwhile, by name of what they run; not those of monitors and timers."""
    loop, asker = asyncio.get_running_loop(), asyncio.current_task()
    made: list[str] = []

    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        if asyncio.current_task() is asker:
            made.append(getattr(work, "__qualname__", repr(work)))
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield made
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("ask", [quick, insert_one, find, find_all])
async def test_no_task_is_made_for_an_operation(open_sluice: OpenSluice, replica_set: ReplicaSet, ask: Ask) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    await ask(sluice)
    with tasks_made() as made:
        for _ in range(20):
            await ask(sluice)
    assert made == []
    async with AsyncMongoClient[dict[str, Any]](replica_set.url) as bare:
        await bare.test.things.find_one({})
        with tasks_made() as made:
            await bare.test.things.find_one({})
    assert made, "the driver needs no tasks any more, so sluice.drivers.pymongo.connection may go"


@pytest.mark.parametrize(("ask", "command"), [(quick, "find"), (find, "find"), (insert_one, "insert")])
async def test_an_answer_that_takes_too_long_costs_its_connection(
    open_sluice: OpenSluice, replica_set: ReplicaSet, ask: Ask, command: str
) -> None:
    sluice = await open_sluice(socket_timeout=0.3, client=ONCE)
    await with_one_document(sluice)
    fail(replica_set, replica_set.primary(), [command], blockConnection=True, blockTimeMS=1500)
    started = time.monotonic()
    with pytest.raises(NetworkTimeout, match="timed out") as late:
        await ask(sluice)
    assert 0.3 <= time.monotonic() - started < 1.4
    assert late.value.timeout
    assert total(sluice).pool.closed == {"error": 1}
    assert held(sluice) == 0
    assert await quick(sluice) == {"_id": 1}


@pytest.mark.parametrize("ask", QUERIES)
async def test_the_drivers_own_timeout_holds(open_sluice: OpenSluice, replica_set: ReplicaSet, ask: Ask) -> None:
    sluice = await open_sluice()
    await with_one_document(sluice)
    fail(replica_set, replica_set.primary(), ["find"], times=100, blockConnection=True, blockTimeMS=1500)
    started = time.monotonic()
    with pytest.raises(PyMongoError) as late, pymongo.timeout(0.4):
        await ask(sluice)
    assert time.monotonic() - started < 1.4
    assert late.value.timeout
    fail(replica_set, replica_set.primary(), ["find"], times=0)
    assert await quick(sluice) == {"_id": 1}
    assert held(sluice) == 0


@pytest.fixture
async def relay(replica_set: ReplicaSet) -> AsyncIterator[Relay]:
    async with relay_to(replica_set.primary()) as relay:
        yield relay


@pytest.fixture
async def relayed(open_sluice: OpenSluice, relay: Relay) -> Sluice:
    sluice = await open_sluice(url=f"mongodb://127.0.0.1:{relay.port}/?directConnection=true", client=ONCE)
    await with_one_document(sluice)
    await quick(sluice)
    return sluice


@pytest.mark.parametrize("ask", QUERIES)
@pytest.mark.parametrize("part", [0, 10, 16, 40])
async def test_whoever_goes_in_the_middle_of_an_answer_takes_the_connection_with_him(
    relayed: Sluice, relay: Relay, ask: Ask, part: int
) -> None:
    relay.change = lambda answer: answer[:part]
    task = asyncio.create_task(ask(relayed))
    await relay.changed.wait()
    assert await quick(relayed) == {"_id": 1}  # on another connection, while that one has half an answer
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert total(relayed).pool.closed == {"error": 1}
    assert held(relayed) == 0
    assert [await each(relayed) for each in QUERIES * 3] == [{"_id": 1}] * 6


def with_header(answer: bytes, *, length: int | None = None, answers: int | None = None, opcode: int = 2013) -> bytes:
    size, number, answered, _ = HEADER.unpack_from(answer)
    head = HEADER.pack(size if length is None else length, number, answered if answers is None else answers, opcode)
    return head + answer[HEADER.size :]


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "larger than a message may be": lambda answer: with_header(answer, length=48_000_001),
    "smaller than its header": lambda answer: with_header(answer, length=3),
    "of a negative length": lambda answer: with_header(answer, length=-1),
    "another's": lambda answer: with_header(answer, answers=7),
    "of an opcode that nobody knows": lambda answer: with_header(answer, opcode=1),
    "with flags that nobody knows": lambda answer: answer[:16] + struct.pack("<I", 4) + answer[20:],
}


@pytest.mark.parametrize("ask", QUERIES)
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_an_answer_that_nobody_understands_costs_its_connection(
    relayed: Sluice, relay: Relay, ask: Ask, garbage: str
) -> None:
    relay.change = GARBAGE[garbage]
    async with asyncio.timeout(5):
        with pytest.raises(PyMongoError) as met:
            await ask(relayed)
    assert isinstance(met.value, ProtocolError | ConnectionFailure)
    await until(lambda: sum(total(relayed).pool.closed.values()) == 1)
    assert held(relayed) == 0
    await until(lambda: relayed.ready)
    assert [await each(relayed) for each in QUERIES] == [{"_id": 1}] * 2


@pytest.mark.parametrize("ask", QUERIES)
async def test_a_connection_that_the_member_closes_ends_the_wait(
    open_sluice: OpenSluice, replica_set: ReplicaSet, ask: Ask
) -> None:
    sluice = await open_sluice(client=ONCE)
    await with_one_document(sluice)
    fail(replica_set, replica_set.primary(), ["find"], closeConnection=True)
    with pytest.raises(AutoReconnect, match="connection closed"):
        await ask(sluice)
    await until(lambda: sluice.ready)
    assert await ask(sluice) == {"_id": 1}
    await until(lambda: held(sluice) == 0)  # the ping that found the member again has one, too


@pytest.mark.parametrize("wait", [slow, slow_find])
async def test_a_pool_that_is_cleared_lets_who_waits_have_his_answer(
    open_sluice: OpenSluice, wait: Callable[[Sluice, float], Coroutine[Any, Any, object]]
) -> None:
    sluice = await open_sluice(client=ONCE)
    await with_one_document(sluice)
    task = asyncio.create_task(wait(sluice, 0.5))
    await until(lambda: total(sluice).pool.active_connections == 1)
    await pool_in_use(sluice).reset()
    assert not task.done()
    await task
    await until(lambda: held(sluice) == 0)
    assert total(sluice).pool.closed == {"stale": 1}
    await until(lambda: sluice.ready)
    assert await quick(sluice) == {"_id": 1}


@pytest.mark.parametrize("wait", [slow, slow_find])
async def test_a_pool_that_is_closed_lets_who_waits_have_his_answer(
    open_sluice: OpenSluice, wait: Callable[[Sluice, float], Coroutine[Any, Any, object]]
) -> None:
    sluice = await open_sluice(client=ONCE)
    await with_one_document(sluice)
    task = asyncio.create_task(wait(sluice, 0.5))
    await until(lambda: total(sluice).pool.active_connections == 1)
    pool = pool_in_use(sluice)
    await sluice.close()
    assert not task.done()
    await task
    assert pool.turnstile.held == 0
    assert (pool.tracker.open, pool.tracker.taken) == (set(), {})


@pytest.mark.parametrize("wait", [slow, slow_find])
async def test_a_pool_that_is_interrupted_ends_every_wait_at_once(
    open_sluice: OpenSluice, wait: Callable[[Sluice, float], Coroutine[Any, Any, object]]
) -> None:
    """The driver looks twice a second, here at another moment for each of them."""
    sluice = await open_sluice(client=ONCE)
    await with_one_document(sluice)
    tasks = []
    for number in range(1, 6):
        tasks.append(asyncio.create_task(wait(sluice, 20)))
        await until(lambda number=number: total(sluice).pool.active_connections == number)  # type: ignore[misc]
        await asyncio.sleep(0.1)
    pool = pool_in_use(sluice)
    await pool.reset(interrupt_connections=True)
    await until(lambda: all(task.done() for task in tasks), 0.2)
    for task in tasks:
        assert isinstance(task.exception(), AutoReconnect)
        assert str(task.exception()) == "operation cancelled"
    await until(lambda: held(sluice) == 0)
    assert total(sluice).pool.closed == {"error": 5}
    await until(lambda: sluice.ready)
    assert await quick(sluice) == {"_id": 1}


async def test_a_connection_that_was_interrupted_before_it_waits_doesnt(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(client=ONCE)
    await with_one_document(sluice)
    client: Any = sluice.client
    server = await client._select_server(sluice.collection("slow").read_preference, None, "find")
    async with server.pool.checkout() as connection:
        await server.pool.reset(interrupt_connections=True)
        with pytest.raises(AutoReconnect, match="operation cancelled"):
            await connection.command("admin", {"ping": 1})
        assert connection.closed
    assert held(sluice) == 0


DOCUMENTS: list[dict[str, Any]] = [{"_id": number, "text": "x" * 1000} for number in range(1000)]


async def read_to_the_end(sluice: Sluice) -> None:
    """A thousand documents, ten at a time, which the member sends without being asked again."""
    collection = sluice.collection("many")
    await collection.insert_many(DOCUMENTS)
    cursor = collection.find({}, cursor_type=CursorType.EXHAUST, batch_size=10).sort("_id")
    found = []
    async for document in cursor:
        found.append(document)
        if len(found) == 20:
            assert total(sluice).pool.active_connections == 1
    assert found == DOCUMENTS
    await until(lambda: held(sluice) == 0)
    assert await collection.find({}, {"text": 0}).sort("_id").to_list() == [{"_id": number} for number in range(1000)]


async def test_exhaust_cursors_read_to_the_end(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    await read_to_the_end(sluice)
    cursor = sluice.collection("many").find({}, cursor_type=CursorType.EXHAUST, batch_size=10)
    await anext(cursor)
    await cursor.close()  # the member is still sending
    await until(lambda: held(sluice) == 0)
    assert await sluice.collection("many").count_documents({}) == len(DOCUMENTS)
    assert len(await sluice.find("many", {})) == len(DOCUMENTS)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a server that takes TLS only."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate, both = (folder / name for name in ("key.pem", "certificate.pem", "both.pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    (port,) = free_ports(1)
    data = folder / "data"
    data.mkdir()
    command = mongod_command(
        find_mongod(),
        port,
        data=data,
        log=folder / "mongod.log",
        cache_gb=0.25,
        shutdown_ms=100,
        replica_set=None,
        parameters={"enableTestCommands": 1},
    )
    tls = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(both), "--tlsAllowConnectionsWithoutCertificates"]
    tls += ["--tlsCAFile", str(certificate)]
    process = subprocess.Popen([*command, *tls], stdout=subprocess.DEVNULL)
    try:
        yield f"mongodb://127.0.0.1:{port}/?tls=true&tlsCAFile={Path(certificate)}"
    finally:
        process.kill()
        process.wait()


async def test_all_of_it_over_tls(open_sluice: OpenSluice, options: Options, encrypted: str) -> None:
    sluice = await open_sluice(url=encrypted, socket_timeout=1, server_selection_timeout=20)
    await with_one_document(sluice)
    for ask in (quick, find):
        assert await ask(sluice) == {"_id": 1}
    await sluice.collection("large").insert_one({"_id": 1, "text": "x" * 15_000_000})
    for found in (await sluice.find("large", {}), await sluice.collection("large").find({}).to_list()):
        assert [len(document["text"]) for document in found] == [15_000_000]
    await asyncio.gather(*(insert_one(sluice) for _ in range(50)))
    assert len(await sluice.find("others", {})) == 50
    await read_to_the_end(sluice)
    before = total(sluice).pool.closed.get("error", 0)
    for wait in (slow, slow_find):
        task = asyncio.create_task(wait(sluice, 20))
        await until(lambda: total(sluice).pool.active_connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert total(sluice).pool.closed["error"] == before + 2
    assert await quick(sluice) == {"_id": 1}
    assert held(sluice) == 0
