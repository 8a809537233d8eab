"""The servers that are measured: one Gunicorn worker each, behind an nginx of its own, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.settings.model import Settings, load
from bench.sides import KEY, App
from stack.configure import configure
from stack.home import ROOT
from stack.install import find
from stack.layout import Layout
from stack.readiness import answers


@dataclass(eq=False)
class Server:
    """A running application."""

    app: App
    port: int
    process: subprocess.Popen[bytes]
    nginx_port: int | None = None

    def url(self, way: str) -> str:
        """`direct`, or through `nginx`."""
        return f"http://127.0.0.1:{self.port if way == 'direct' else self.nginx_port}"

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]

    @property
    def cpu(self) -> float:
        """Seconds of processor time that the worker has used."""
        times = self.worker.cpu_times()
        return float(times.user + times.system)

    def settle(self) -> None:
        """Wait until the worker is done with what is left of an earlier load, for 6 seconds at most."""
        for _ in range(30):
            before = self.cpu
            time.sleep(0.2)
            if self.cpu - before < 0.05:
                return


@contextmanager
def served(apps: Sequence[App], url: str, folder: Path, *, nginx: bool = False) -> Iterator[list[Server]]:
    """Run the applications until the block ends. Raises `RuntimeError` if one doesn't come up."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_server(app, url, folder / app.database, nginx)) for app in apps]
        for server in servers:
            ways = ("direct", "nginx") if nginx else ("direct",)
            for way in ways:
                _wait_for(f"{server.url(way)}/health/ready", server, folder / server.app.database)
        yield servers


@contextmanager
def _server(app: App, url: str, folder: Path, nginx: bool) -> Iterator[Server]:
    layout = Layout.on_free_ports(folder / "stack")
    port = layout.api.number
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(app, url, port, folder)
    with (folder / "output.log").open("wb") as output, ExitStack() as stack:
        process = subprocess.Popen(
            app.command(port), cwd=ROOT / "api", env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(_end, process)
        server = Server(app, port, process)
        if nginx:
            stack.enter_context(_nginx(layout))
            server.nginx_port = layout.http.number
        yield server


def _environment(app: App, url: str, port: int, folder: Path) -> dict[str, str]:
    """The machine's, without settings of the service that happen to be in it."""
    ours = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    return kept | {
        "PYTHONPATH": f"{ROOT / 'api'}:{ROOT}",
        "MONGODB_URL": url,
        "DATABASE_NAME": app.database,
        "BIND": f"127.0.0.1:{port}",
        "WORKERS": "1",
        "MAX_REQUESTS": "0",
        "MAX_REQUESTS_JITTER": "0",
        "API_KEY": KEY,
        "STATS_DIR": str(folder / "statistics"),
        "LOG_FILE": str(folder / "api.log"),
    }


@contextmanager
def _nginx(layout: Layout) -> Iterator[None]:
    """nginx with the native stack's configuration."""
    settings = load(mongodb_url="mongodb://localhost", api_key=KEY, workers=1)
    try:
        configure(layout, settings)
        command = [find("nginx") or "nginx", "-p", str(layout.home / "nginx"), "-c", "conf/nginx.conf"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            _end(process)
    finally:
        shutil.rmtree(layout.shared, ignore_errors=True)


def _wait_for(url: str, server: Server, folder: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and server.process.poll() is None:
        if answers(url):
            return
        time.sleep(0.05)
    output = (folder / "output.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{server.app.name} doesn't answer at {url}: {output}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()
