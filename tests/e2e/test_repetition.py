"""What nginx does when the API hangs up: repeats what only reads, and nothing else.

The repository's own nginx.conf, before an API that takes requests and never answers.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import httpx
import pytest
from whole_stack import Stack, until

from stack.free_ports import free_ports


class Deaf(ThreadingTCPServer):
    """Reads each request's head, notes its method, and hangs up."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(StreamRequestHandler):
    server: Deaf

    def handle(self) -> None:
        head = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        self.server.seen.append(head.split()[0])


@pytest.fixture
def api() -> Iterator[Deaf]:
    with Deaf() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def nginx(stack: Stack, api: Deaf, tmp_path: Path) -> Iterator[str]:
    """The stack's own configuration, another port, and the deaf API behind; its address."""
    port, status = free_ports(2)
    shutil.copytree(stack.home / "nginx/conf", tmp_path / "conf")
    (tmp_path / "logs").mkdir()
    for name, old, new in (
        ("environment.conf", f"{stack.home}/run/nginx.pid", f"{tmp_path}/nginx.pid"),
        ("listen.conf", str(stack.layout.http.number), str(port)),
        ("listen_status.conf", str(stack.layout.nginx_status.number), str(status)),
        ("upstream.conf", str(stack.layout.api.number), str(api.server_address[1])),
    ):
        path = tmp_path / "conf" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") or "nginx"
    process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", "conf/nginx.conf", "-e", "stderr"])
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: httpx.get(f"{url}/metrics").status_code == 404)
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize(
    ("method", "times"), [("GET", 3), ("HEAD", 3), ("OPTIONS", 3), ("POST", 1), ("PUT", 1), ("PATCH", 1), ("DELETE", 1)]
)
def test_only_what_reads_is_sent_a_second_time(nginx: str, api: Deaf, method: str, times: int) -> None:
    answer = httpx.request(method, f"{nginx}/users")
    assert api.seen == [method] * times
    assert answer.status_code == 503
    if method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "key", "times"),
    [
        ("POST", [("Idempotency-Key", "a")], 3),
        ("POST", [("Idempotency-Key", "a"), ("Idempotency-Key", "b")], 3),  # refused by the API, each time
        ("POST", [("Idempotency-Key", "")], 1),
        ("POST", [("Idempotency_Key", "a")], 1),
        ("PATCH", [("Idempotency-Key", "a")], 1),
        ("DELETE", [("Idempotency-Key", "a")], 1),
    ],
)
@pytest.mark.parametrize("path", ["/users", "/users/bulk"])
def test_a_create_with_a_key_is_sent_a_second_time(
    nginx: str, api: Deaf, path: str, method: str, key: list[tuple[str, str]], times: int
) -> None:
    answer = httpx.request(method, f"{nginx}{path}", headers=[*key, ("Content-Length", "0")])
    assert api.seen == [method] * times
    assert answer.status_code == 503
