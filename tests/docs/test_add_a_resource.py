"""docs/add-a-resource.md, followed to the letter in a copy of the repository; what comes of it is tested and used."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from stack.free_ports import free_ports
from stack.replica_set import ReplicaSet

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/add-a-resource.md").read_text()
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
DIFFS: list[str] = re.findall(r"^```diff\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS: list[str] = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
TEST, LISTEN, ORDER = COMMANDS
ADDRESS = "http://localhost:8000"

pytestmark = pytest.mark.timeout(300)

TEA = {"product": "tea", "amount": 1}
Run = Callable[..., str]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, in which somebody has followed the guide."""
    copy = tmp_path_factory.mktemp("guide") / "sluice"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".sluice", ".*_cache", "__pycache__", "results"))
    for name, content in FILES.items():
        path = copy / name
        assert not path.exists(), f"the guide calls {name} new"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    for diff in DIFFS:
        subprocess.run(["git", "apply", "-"], cwd=copy, input=diff, text=True, check=True)
    return copy


@pytest.fixture(scope="module")
def run(copy: Path) -> Run:
    """Runs a command in the copy, which must succeed; its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

    def run(*command: str, **more: str) -> str:
        done = subprocess.run(command, cwd=copy, env={**environment, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_everything_in_the_guide_is_followed() -> None:
    assert len(FILES) == GUIDE.count("```python\n")
    assert len(FILES) + len(DIFFS) + len(COMMANDS) == GUIDE.count("```") / 2


def test_what_it_makes_is_in_style_and_typed(run: Run) -> None:
    run("ruff", "check", *FILES)
    run("ruff", "format", "--check", *FILES)
    run("mypy", *FILES)


def test_its_test_runs_as_the_guide_says(run: Run, tmp_path: Path) -> None:
    """With this environment's packages: those that test.sh would install."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "test-venv").symlink_to(Path(sys.prefix))
    (home / "bin").symlink_to(Path(os.environ["SLUICE_MONGOD"]).parent)
    output = run("bash", "-ec", TEST.replace("\n", " -p no:cacheprovider\n"), SLUICE_HOME=str(home))
    tests = FILES["api/tests/app/test_orders.py"].count("async def test_")
    assert re.search(rf"^=+ {2 * tests} passed", output, re.MULTILINE), output


def test_the_rest_of_the_tests_know_the_new_resource(run: Run) -> None:
    mongod = os.environ["SLUICE_MONGOD"]
    run(
        *("pytest", "-q", "-p", "no:cacheprovider", "-k", "not motor"),
        *(f"api/tests/app/test_{name}.py" for name in ("app", "openapi", "private_names", "rooms")),
        "api/tests/app/test_collections.py::test_a_collection_of_others_is_left_alone_and_named",
        "tests/kubernetes/test_manifests.py",
        SLUICE_MONGOD=mongod,
    )


@pytest.fixture(scope="module")
def replica_set() -> Iterator[ReplicaSet]:
    replica_set = ReplicaSet()
    try:
        replica_set.start()
        yield replica_set
    finally:
        replica_set.stop()


@dataclass
class Server:
    """Gunicorn in the copy, with two workers and pools of eight."""

    copy: Path
    folder: Path
    url: str
    driver: str
    database: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "MONGODB_URL": self.url,
            "MONGODB_DRIVER": self.driver,
            "DATABASE_NAME": self.database,
            "MAX_POOL_SIZE": "8",
            "MIN_POOL_SIZE": "0",
            "WORKERS": "2",
            "BIND": f"127.0.0.1:{self.port}",
            "GRACEFUL_TIMEOUT": "60",
            "STATS_DIR": str(self.folder / "stats"),
            "STATS_CACHE_MS": "0",
            "LOG_FILE": str(self.folder / "api.log"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "main:app"],
            cwd=self.copy / "api",
            env={**os.environ, **settings},
            stdout=subprocess.DEVNULL,
        )
        until(lambda: httpx.get(f"{self.address}/health").json().get("workers") == 2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def metric(self, start: str) -> float:
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    def operations(self, collection: str, name: str) -> float:
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        labels = (f'db_collection_name="{collection}"', f'db_operation_name="{name}"')
        counts = [line for line in lines if line.startswith("db_client_operation_duration_seconds_count")]
        return sum(float(line.rpartition(" ")[2]) for line in counts if all(label in line for label in labels))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds(condition):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (httpx.TransportError, ValueError):
        return False


@pytest.fixture(params=["pymongo", "motor"])
def server(request: pytest.FixtureRequest, copy: Path, replica_set: ReplicaSet, tmp_path: Path) -> Iterator[Server]:
    (port,) = free_ports(1)
    database = f"guide_{uuid.uuid4().hex[:8]}"
    server = Server(copy, tmp_path, replica_set.url, request.param, database, port)
    try:
        server.start()
        yield server
        log = (tmp_path / "api.log").read_text()
        assert "ERROR" not in log, log
        assert "is never called" not in log, log
    finally:
        server.stop()
        with MongoClient[dict[str, Any]](replica_set.url) as client:
            client.drop_database(database)


def documents(text: str) -> list[Any]:
    """JSON documents that stand one behind the other, as curl prints answers."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_the_commands_do_what_the_guide_says(server: Server, run: Run) -> None:
    listen, order = (command.replace(ADDRESS, server.address) for command in (LISTEN, ORDER))
    listener = subprocess.Popen(["bash", "-c", f"exec {listen}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert listener.stdout is not None
    try:
        assert listener.stdout.readline().startswith(b"id: ")  # of where it begins
        assert listener.stdout.readline() == b"\n"
        stock, placed, refused, left = documents(run("bash", "-ec", order))
        heard = [listener.stdout.readline().decode().rstrip("\n").partition(": ") for _ in range(3)]
    finally:
        listener.kill()
        listener.wait()
    assert (stock["amount"], placed["amount"], left["amount"]) == (3, 2, 1)
    assert (refused["status"], refused["type"]) == (409, "/problems/out-of-stock")
    event = {name: value for name, _, value in heard}
    assert (event["event"], json.loads(event["data"])) == ("order", placed)
    with MongoClient[dict[str, Any]](server.url) as client:
        database = client[server.database]
        assert [str(order["_id"]) for order in database.orders.find()] == [placed["id"]]
        assert list(database.stock.find()) == [{"_id": "tea", "amount": 1}]
    assert httpx.get(f"{server.address}/orders/{placed['id']}").json() == placed
    until(lambda: server.metric("orders_placed_total") == 1)
    until(lambda: server.operations("orders", "watch") == 1)
    until(lambda: server.operations("orders", "insert_one") == 1)
    until(lambda: server.operations("stock", "update_one") == 3)
    until(lambda: "orders" in [row["collection"] for row in stats(server)["coalescing"]])
    paths = httpx.get(f"{server.address}/openapi.json").json()["paths"]
    assert {"/orders", "/orders/{id}", "/orders/events", "/stock/{product}"} <= paths.keys()
    assert "text/event-stream" in paths["/orders/events"]["get"]["responses"]["200"]["content"]


def stats(server: Server) -> Any:
    return httpx.get(f"{server.address}/connection-stats").json()["connection_pool_stats"]


@asynccontextmanager
async def listening(http: httpx.AsyncClient, last: str | None = None) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    async def events(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
        event: dict[str, str] = {}
        async for line in lines:
            name, _, value = line.partition(": ")
            if line:
                event[name] = value
            elif "data" in event:
                yield event
                event = {}

    headers = {} if last is None else {"Last-Event-ID": last}
    async with http.stream("GET", "/orders/events", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["x-accel-buffering"] == "no"
        yield events(answer.aiter_lines())


async def place(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.post("/orders", json=TEA)
    assert answer.status_code == 201, answer.text
    order: dict[str, Any] = answer.json()
    return order


async def test_listeners_starve_nobody_and_miss_nothing_while_workers_are_replaced(server: Server) -> None:
    limits = httpx.Limits(max_connections=None)
    async with asyncio.timeout(90), httpx.AsyncClient(base_url=server.address, timeout=60, limits=limits) as http:
        await http.put("/stock/tea", json={"amount": 100})
        async with AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(listening(http)) for _ in range(40)]
            for _ in range(5):  # no more at once than one worker's queue has room for
                answers = await asyncio.gather(*(http.get("/orders") for _ in range(20)))
                assert [answer.status_code for answer in answers] == [200] * 20
            first = await place(http)
            heard = await asyncio.gather(*(anext(stream) for stream in streams))
            assert [json.loads(event["data"]) for event in heard] == [first] * 40
            assert (await http.head("/orders/events")).status_code == 200
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            ends = await asyncio.gather(*(anext(stream, None) for stream in streams))
            assert ends == [None] * 40  # to the last chunk
            async with asyncio.timeout(20):  # GRACEFUL_TIMEOUT is 60
                await stopping
        await asyncio.to_thread(server.start)
        missed = await place(http)
        async with listening(http, heard[0]["id"]) as events:
            assert json.loads((await anext(events))["data"]) == missed
        for last, problem in (("AB", (422, "/problems/unknown-change")), ("x", (422, "/problems/invalid"))):
            answer = await http.get("/orders/events", headers={"Last-Event-ID": last})
            assert (answer.status_code, answer.json()["type"]) == problem


def test_whoever_was_away_for_too_long_is_told(server: Server, replica_set: ReplicaSet) -> None:
    events = f"{server.address}/orders/events"
    with replica_set.direct(replica_set.primary()) as client:
        lost = {"failCommands": ["aggregate"], "errorCode": 286}
        client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=lost)
        try:
            answer = httpx.get(events, headers={"Last-Event-ID": "82"})
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert (answer.status_code, answer.json()["type"]) == (410, "/problems/changes-lost")


async def test_the_stock_is_neither_oversold_nor_left_over(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as http:
        await http.put("/stock/tea", json={"amount": 20})
        answers = await asyncio.gather(*(http.post("/orders", json=TEA) for _ in range(40)))
        found = sorted(answer.status_code for answer in answers)
        assert found == [201] * 20 + [409] * 20, [answer.text for answer in answers if answer.status_code >= 500]
        assert (await http.get("/stock/tea")).json()["amount"] == 0
        assert len((await http.get("/orders", params={"limit": 100})).json()["items"]) == 20
