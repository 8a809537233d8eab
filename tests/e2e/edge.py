"""nginx as up.sh configures it, before one Gunicorn or whatever else listens at the API's port; without supervisord."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from whole_stack import ROOT, until

from app.settings.model import load
from stack.configure import configure
from stack.install import find
from stack.layout import Layout


@contextmanager
def nginx(home: Path, **given: Any) -> Iterator[Layout]:
    """nginx with these settings, at `layout.http`, before `layout.api`."""
    layout = Layout.on_free_ports(home)
    try:
        configure(layout, load(_env_file=None, **given))
        with process([find("nginx") or "nginx", "-p", str(home / "nginx"), "-c", "conf/nginx.conf"]):
            until(lambda: httpx.get(f"{url(layout)}/metrics").status_code == 404)
            yield layout
    finally:
        shutil.rmtree(layout.shared, ignore_errors=True)


@contextmanager
def gunicorn(layout: Layout, **settings: Any) -> Iterator[str]:
    """The service's own at `layout.api`, with these settings; its address."""
    environment = {
        **os.environ,
        **{name.upper(): str(value) for name, value in settings.items()},
        "BIND": f"127.0.0.1:{layout.api.number}",
        "STATS_DIR": str(layout.home / "statistics"),
        "LOG_FILE": str(layout.home / "api.log"),
    }
    address = f"http://127.0.0.1:{layout.api.number}"
    command = [str(Path(sys.executable).parent / "gunicorn"), "main:app"]
    with process(command, cwd=ROOT / "api", env=environment):
        until(lambda: httpx.get(f"{address}/health/live").status_code == 200)
        yield address


@contextmanager
def process(command: list[str], **options: Any) -> Iterator[None]:
    started = subprocess.Popen(command, **options)
    try:
        yield
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(20)


def url(layout: Layout) -> str:
    return f"http://127.0.0.1:{layout.http.number}"
