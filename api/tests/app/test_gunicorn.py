"""Gunicorn with real processes; none of this needs MongoDB."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

API = Path(__file__).parents[2]
AWAY = "mongodb://127.0.0.1:1/?replicaSet=rs0"

Start = Callable[..., "Server"]


class Server:
    """A Gunicorn master and its two workers."""

    def __init__(self, folder: Path, *arguments: str, application: str = "main:app", **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.stats = Path(environment.get("STATS_DIR", folder / "stats"))
        self.log = folder / "api.log"
        self.errors = folder / "stderr"
        settings = {
            "MONGODB_URL": AWAY,
            "SERVER_SELECTION_TIMEOUT_MS": "200",
            "STATS_DIR": str(self.stats),
            "LOG_FILE": str(self.log),
            **environment,
        }
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            application,
            "-w",
            "2",
            "--bind",
            f"127.0.0.1:{self.port}",
            *arguments,
        ]
        with self.errors.open("wb") as errors:
            self.master = subprocess.Popen(
                command, cwd=API, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=errors
            )

    def wait(self) -> None:
        until(lambda: len(self.workers()) == 2 and self.log.read_text().count("startup complete") == 2, 60)

    def workers(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.master.pid).children()
        except psutil.NoSuchProcess:
            return []

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def files(self) -> set[str]:
        """The files that workers leave behind; a draft is one that is being written."""
        paths = (path for path in self.stats.rglob("*") if path.is_file() and path.suffix != ".draft")
        return {str(path.relative_to(self.stats)) for path in paths}

    def stop(self) -> None:
        workers = self.workers()
        self.master.terminate()
        self.master.wait(20)
        psutil.wait_procs(workers, timeout=20)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not _holds(condition):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start_one(*arguments: str, **environment: str) -> Server:
        servers.append(Server(tmp_path, *arguments, **environment))
        servers[-1].wait()
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()


def requests_counted(server: Server) -> float:
    lines = [line for line in server.get("/metrics").splitlines() if line.startswith("http_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("preload", ["false", "true"])
def test_a_killed_worker_comes_back_in_its_slot_and_counts_on(start: Start, preload: str) -> None:
    server = start(PRELOAD=preload, STATS_CACHE_MS="0")
    for _ in range(20):
        server.get("/openapi.json")
    files, counted = server.files(), requests_counted(server)
    assert counted == 20
    for _ in range(3):
        victim = server.workers()[0]
        victim.kill()
        psutil.wait_procs([victim], timeout=5)
        until(lambda gone=victim.pid: len(server.workers()) == 2 and gone not in [w.pid for w in server.workers()])  # type: ignore[misc]
        until(lambda: '"workers":2' in _health(server))
    assert requests_counted(server) == 20
    server.get("/openapi.json")
    until(lambda: requests_counted(server) == 21)
    assert {name for name in server.files() if not name.startswith("metrics/")} == {
        name for name in files if not name.startswith("metrics/")
    }
    assert len(server.files()) <= len(files) + 2  # a slot that had served nothing yet


class Tmpfs:
    """A small file system of its own, which a test fills."""

    def __init__(self, path: Path, options: str) -> None:
        self.path = path
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True)
        if done.returncode != 0:
            path.rmdir()
            pytest.skip("mounting a tmpfs needs root")

    def fill(self) -> None:
        """Use up the space, to the last byte."""
        with (self.path / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def use_up_inodes(self) -> None:
        (self.path / "many").mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (self.path / "many" / str(number)).touch(exist_ok=False)

    def delete(self) -> None:
        shutil.rmtree(self.path / "stats")

    def make_room(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)
        shutil.rmtree(self.path / "many", ignore_errors=True)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Tmpfs]]:
    made: list[Path] = []

    def mount(options: str) -> Tmpfs:
        made.append(tmp_path / f"tmpfs{len(made)}")
        return Tmpfs(made[-1], options)

    yield mount
    for path in filter(os.path.ismount, made):
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def replace_workers(server: Server) -> None:
    """Kill every worker, and wait for others that serve."""
    old = server.workers()
    for worker in old:
        worker.kill()
    psutil.wait_procs(old, timeout=5)
    until(lambda: len(server.workers()) == 2 and not {w.pid for w in old} & {w.pid for w in server.workers()})
    until(lambda: server.get("/health/live") == '{"status":"alive"}')


def serves(server: Server) -> None:
    """Requests by many labels, through every worker; none fails for want of figures."""
    for number in range(15):
        assert server.get("/health/live") == '{"status":"alive"}'
        assert '"openapi"' in server.get("/openapi.json")
        for method in ("PUT", "PATCH", "DELETE", "POST"):
            request = urllib.request.Request(f"http://127.0.0.1:{server.port}/nothing/{number}", method=method)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request, timeout=5)  # noqa: S310
    assert server.master.poll() is None
    assert "SIGBUS" not in server.log.read_text()


@pytest.mark.parametrize("trouble", [Tmpfs.fill, Tmpfs.use_up_inodes, Tmpfs.delete])
def test_what_befalls_the_statistics_folder_costs_figures_and_no_request(
    start: Start, tmpfs: Callable[[str], Tmpfs], trouble: Callable[[Tmpfs], None]
) -> None:
    folder = tmpfs("size=2m,nr_inodes=40")
    server = start(STATS_DIR=str(folder.path / "stats"), STATS_CACHE_MS="0", WORKER_TMP_DIR=str(folder.path))
    assert '"statistics":"complete"' in _health(server)
    trouble(folder)
    if trouble is not Tmpfs.delete:
        until(lambda: '"statistics":"incomplete"' in _health(server))
        assert '"statistics":"incomplete"' in server.get("/connection-stats")
    serves(server)
    replace_workers(server)
    serves(server)
    assert "sluice_connections_configured" in server.get("/metrics")
    folder.make_room()
    until(lambda: '"workers":2' in _health(server) and '"statistics":"complete"' in _health(server))

    def counts() -> bool:
        before = requests_counted(server)
        server.get("/openapi.json")
        return requests_counted(server) == before + 1

    until(counts)  # whichever worker answers
    assert server.log.read_text().count("can't be published") <= 4  # each worker once, the replaced ones too
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("trouble", [Tmpfs.fill, Tmpfs.use_up_inodes])
def test_a_folder_that_is_full_at_the_start_is_no_reason_not_to_serve(
    start: Start, tmpfs: Callable[[str], Tmpfs], trouble: Callable[[Tmpfs], None]
) -> None:
    folder = tmpfs("size=256k,nr_inodes=20")
    trouble(folder)
    server = start(STATS_DIR=str(folder.path / "stats"), STATS_CACHE_MS="0", WORKER_TMP_DIR=str(folder.path))
    assert '"statistics":"incomplete"' in _health(server)
    serves(server)


TICKETS = """
import os, time
from prometheus_client import Counter, Gauge, Histogram

CREATED = Counter("tickets_created", "Tickets.")
BY_COUNTRY = Counter("tickets_by_country", "Tickets.", ["country"])
SECONDS = Histogram("ticket_seconds", "Time.", buckets=(1, 10))
IN_PROGRESS = Gauge("tickets_in_progress", "Tickets.", multiprocess_mode="livesum")
IMPORTS = Counter("tickets_imports", "Times that this was imported.")
IMPORTS.inc()

from app.main import serve

app = serve()

@app.post("/tickets")
def create():
    CREATED.inc()
    BY_COUNTRY.labels("de").inc(2)
    SECONDS.observe(5)
    IN_PROGRESS.inc()
    time.sleep(0.02)  # in a thread, so that the other worker gets some, too
    return os.getpid()
"""


def own_metrics(server: Server) -> dict[str, float]:
    lines = [line for line in server.get("/metrics").splitlines() if line.startswith("ticket")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize("preload", ["false", "true"])
def test_an_applications_own_metrics_are_right_over_all_workers(start: Start, tmp_path: Path, preload: str) -> None:
    (tmp_path / "tickets.py").write_text(TICKETS)
    server = start(application="tickets:app", PYTHONPATH=str(tmp_path), PRELOAD=preload, STATS_CACHE_MS="0")

    def create(number: int) -> set[str]:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/tickets", method="POST")
        with ThreadPoolExecutor(8) as callers:
            return set(callers.map(lambda _: urllib.request.urlopen(request, timeout=5).read(), range(number)))  # noqa: S310

    created, served = 0, set[str]()
    while len(served) < 2:
        served |= create(20)
        created += 20
    imports = 1 if preload == "true" else 2
    expected = {
        "tickets_created_total": created,
        'tickets_by_country_total{country="de"}': 2 * created,
        'ticket_seconds_bucket{le="1.0"}': 0,
        'ticket_seconds_bucket{le="10.0"}': created,
        'ticket_seconds_bucket{le="+Inf"}': created,
        "ticket_seconds_count": created,
        "ticket_seconds_sum": 5 * created,
        "tickets_imports_total": imports,
    }
    for _ in range(5):  # whichever worker answers
        assert own_metrics(server) == expected | {"tickets_in_progress": created}
    replace_workers(server)
    until(lambda: '"workers":2' in _health(server))
    imports += 0 if preload == "true" else 2
    until(lambda: own_metrics(server)["tickets_imports_total"] == imports)
    assert own_metrics(server) == expected | {"tickets_imports_total": imports, "tickets_in_progress": 0}
    create(1)
    assert own_metrics(server)["tickets_created_total"] == created + 1
    assert {name for name in server.files() if "ticket" in name} == set()


def test_an_applications_metric_may_not_have_the_name_of_the_services(tmp_path: Path) -> None:
    for name, kind in (
        ("http_requests", "Counter"),
        ("db_client_connection_created", "Counter"),
        ("sluice_worker_ready", "Gauge"),
    ):
        code = f"import app.main; from prometheus_client import {kind}; {kind}('{name}', 'Mine.')"
        ended = subprocess.run([sys.executable, "-c", code], cwd=API, capture_output=True, text=True)
        assert ended.returncode == 1
        assert f"Duplicated timeseries in CollectorRegistry: {{'{name}" in ended.stderr


STREAMS = """
import asyncio
from collections.abc import AsyncIterator
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

from app.main import serve

app = serve()

async def endless():
    try:
        yield "data: first\\n\\n"
        await asyncio.Event().wait()
    finally:
        print("over", file=open("{ended}", "a"))

@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[str]:
    async for event in endless():
        yield event

@app.get("/by-hand")
async def by_hand():
    return StreamingResponse(endless(), media_type="text/event-stream")

@app.get("/download")
async def download():
    async def rows():
        yield "a row"
        await asyncio.sleep(1)
        yield ", and the last"
    return StreamingResponse(rows(), media_type="text/csv")
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopping_worker_ends_streams_of_events_and_waits_for_others(
    start: Start, tmp_path: Path, end: signal.Signals
) -> None:
    ended = tmp_path / "ended"
    (tmp_path / "streams.py").write_text(STREAMS.format(ended=ended))
    server = start(application="streams:app", PYTHONPATH=str(tmp_path), GRACEFUL_TIMEOUT="60")
    opened = {
        path: urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=20)
        for path in ("/events", "/by-hand", "/download")
    }
    assert b"first" in opened["/events"].readline()
    assert b"first" in opened["/by-hand"].readline()
    assert opened["/download"].read(5) == b"a row"
    workers = server.workers()
    server.master.send_signal(end)
    for path in ("/events", "/by-hand"):
        assert opened[path].read().strip() == b""  # to the last chunk: else this raises IncompleteRead
    assert opened["/download"].read() == b", and the last"
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    assert ended.read_text() == "over\n" * 2
    assert "ERROR" not in server.log.read_text()


def _health(server: Server) -> str:
    try:
        return server.get("/health")
    except urllib.error.HTTPError as answer:
        return answer.read().decode()


def test_workers_do_not_outlive_a_killed_master(start: Start) -> None:
    server = start()
    workers = server.workers()
    server.master.kill()
    server.master.wait()
    end = time.monotonic() + 3  # until then another one may have taken over
    assert slowest_answer(server, lambda: time.monotonic() > end) < AT_ONCE
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


STUCK = """
import os, time
from app.main import serve

app = serve()

@app.get("/stuck")
async def stuck():
    open("{stuck}", "w").write(str(os.getpid()))
    time.sleep(600)
"""


def test_a_stuck_worker_does_not_outlive_a_killed_master_either(start: Start, tmp_path: Path) -> None:
    stuck = tmp_path / "stuck"
    (tmp_path / "hanging.py").write_text(STUCK.format(stuck=stuck))
    server = start(application="hanging:app", PYTHONPATH=str(tmp_path), GRACEFUL_TIMEOUT="3")
    workers = server.workers()
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.sendall(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: stuck.read_text() != "")
        server.master.kill()
        server.master.wait()
        _, alive = psutil.wait_procs(workers, timeout=10)
    for worker in alive:
        worker.kill()
    assert not alive
    assert int(stuck.read_text()) in {worker.pid for worker in workers}


SLOW_START = """
import asyncio
from contextlib import asynccontextmanager
from app.main import serve

app = serve()
usual = app.router.lifespan_context

@asynccontextmanager
async def lifespan(app):
    await asyncio.sleep(1.5)
    async with usual(app) as state:
        yield state

app.router.lifespan_context = lifespan
"""
AT_ONCE = 0.9
"""Seconds: shorter than a worker takes to start."""


def slowest_answer(server: Server, until_: Callable[[], bool]) -> float:
    """Seconds, of requests on new connections, one after the other."""
    slowest = 0.0
    while not until_():
        began = time.monotonic()
        assert server.get("/health/live") == '{"status":"alive"}'
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_old_workers_serve_until_the_next_do(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_START)
    server = start(application="slow:app", PYTHONPATH=str(tmp_path))
    old = set(server.workers())
    server.master.send_signal(signal.SIGHUP)
    assert slowest_answer(server, lambda: not old & set(server.workers())) < AT_ONCE
    assert len(server.workers()) == 2


def test_workers_that_have_served_their_number_leave_in_turn(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_START)
    environment = {"MAX_REQUESTS": "100", "MAX_REQUESTS_JITTER": "0", "PYTHONPATH": str(tmp_path)}
    server = start(application="slow:app", **environment)
    old = set(server.workers())
    assert slowest_answer(server, lambda: not old & set(server.workers())) < AT_ONCE


@pytest.mark.parametrize("fault", ["raise ValueError('half saved')", "import nothing_of_this_name", "def half("])
def test_a_worker_that_cannot_start_ends_no_others(start: Start, tmp_path: Path, fault: str) -> None:
    module = tmp_path / "edited.py"
    module.write_text("from app.main import serve\n\napp = serve()\n")
    server = start(application="edited:app", PYTHONPATH=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    stays, killed = server.workers()
    module.write_text(fault)
    killed.kill()
    until(lambda: server.log.read_text().count("this worker does not start; others serve on") >= 2)
    assert stays in server.workers()
    assert server.get("/health/live") == '{"status":"alive"}'
    module.write_text("from app.main import serve\n\napp = serve()\n")
    until(lambda: server.log.read_text().count("startup complete") == 3)
    assert stays in server.workers()


def test_the_worker_class_takes_turns_without_our_configuration_as_well(start: Start) -> None:
    worker = ("-c", "/dev/null", "-k", "app.serving.worker.SluiceWorker", "--max-requests", "20")
    server = start(*worker, "--log-file", "-", WORKERS="2", PYTHONUNBUFFERED="1")
    seen = {worker.pid for worker in server.workers()}

    def another() -> bool:
        server.get("/health/live")
        seen.update(worker.pid for worker in server.workers())
        return len(seen) >= 6

    until(another, 60)


def test_a_stop_waits_for_nobody(start: Start) -> None:
    server = start(KEEP_ALIVE="20")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 4


def test_a_reload_with_wrong_settings_goes_on_with_the_right_ones(start: Start, tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text(AWAY)
    server = start(MONGODB_URL="", MONGODB_URL_FILE=str(url))
    before = {worker.pid for worker in server.workers()}
    url.write_text("mongodb://app:geheim@h/?nonsense=1")
    server.master.send_signal(signal.SIGHUP)
    until(lambda: len(server.workers()) == 2 and not before & {worker.pid for worker in server.workers()})
    assert server.get("/health/live") == '{"status":"alive"}'
    assert "option nonsense is unknown" in server.errors.read_text()
    assert "geheim" not in server.errors.read_text()


@pytest.mark.parametrize("worker", ["uvicorn.workers.UvicornWorker", "uvicorn_worker.UvicornWorker"])
def test_the_usual_worker_classes_serve_as_well(start: Start, worker: str) -> None:
    server = start("-k", worker)
    assert server.get("/health/live") == '{"status":"alive"}'


def test_the_budget_counts_the_workers_of_the_command_line(tmp_path: Path) -> None:
    environment = {**os.environ, "CONNECTION_BUDGET": "300", "WORKERS": "1", "STATS_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "gunicorn", "main:app", "-w", "4", "--bind", "127.0.0.1:0"]
    ended = subprocess.run(command, cwd=API, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "4 workers × (100 pool + 2 monitors)" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
