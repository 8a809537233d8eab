"""What clients, browsers and proxies meet at nginx: methods, redirects, CORS, whose address counts, what is repeatable.

nginx as up.sh configures it, before Gunicorn that has no MongoDB, or before something that only notes requests.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import httpx
import pytest
from edge import gunicorn, nginx, process, url
from whole_stack import ROOT, until

from app.settings.model import load
from stack import nginx as derived
from stack.configure import configure
from stack.home import StackError
from stack.install import find
from stack.layout import Layout

APP = "https://app.example.org"
LONG = f"https://{'a' * 60}.{'b' * 60}.{'c' * 60}.example.org:8443"
KEY = "schluessel"
PREFLIGHT = {
    "Origin": APP,
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "content-type,if-match,x-api-key",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """The service through nginx, and past it; without MongoDB."""
    home = tmp_path_factory.mktemp("edge")
    settings = {"api_key": KEY, "cors_origins": f"{APP},{LONG}", "workers": 1, "max_requests_in_progress": 2}
    with nginx(home, **settings) as layout, ExitStack() as running:
        alone = {**settings, "mongodb_url": "mongodb://127.0.0.1:1/", "server_selection_timeout_ms": 100}
        api = running.enter_context(gunicorn(layout, **alone))
        through = running.enter_context(httpx.Client(base_url=url(layout)))
        past = running.enter_context(httpx.Client(base_url=api))
        yield through, past


@pytest.mark.parametrize("path", ["/health/live", "/docs", "/openapi.json", "/users/7", "/users", "/nowhere", "/"])
def test_head_is_get_without_a_body(service: tuple[httpx.Client, httpx.Client], path: str) -> None:
    for client in service:
        head, get = (client.request(method, path, headers={"Accept-Encoding": ""}) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers.keys() == get.headers.keys()
        for name in ("Content-Length", "Content-Type", "Location"):
            assert head.headers.get(name) == get.headers.get(name)


def test_options_and_a_wrong_method_say_what_is_allowed(service: tuple[httpx.Client, httpx.Client]) -> None:
    for client in service:
        for method, status in (("OPTIONS", 204), ("PUT", 405)):
            answer = client.request(method, "/users")
            assert (answer.status_code, answer.headers["Allow"]) == (status, "GET, HEAD, OPTIONS, POST")


def test_redirects_hold_behind_any_proxy(service: tuple[httpx.Client, httpx.Client]) -> None:
    for client in service:
        answer = client.get("/users/?limit=1", headers={"Host": "sluice.example.org", "X-Forwarded-Proto": "https"})
        assert (answer.status_code, answer.headers["Location"]) == (307, "/users?limit=1")


def test_without_a_host_no_inner_address_is_told(service: tuple[httpx.Client, httpx.Client]) -> None:
    with socket.create_connection(("127.0.0.1", service[0].base_url.port or 0), timeout=5) as connection:
        connection.sendall(b"GET /users/ HTTP/1.0\r\n\r\n")
        answer = connection.makefile().read()
    assert "\nLocation: /users\n" in answer.replace("location", "Location")


def test_a_page_of_an_allowed_origin_asks_first_and_then_reads(service: tuple[httpx.Client, httpx.Client]) -> None:
    for client in service:
        preflight = client.options("/users/66f1a2b3c4d5e6f7a8b9c0d1", headers=PREFLIGHT)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == APP
        assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "content-type,if-match,x-api-key"
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        actual = client.get("/health/live", headers={"Origin": APP})
        assert actual.headers.get_list("Access-Control-Allow-Origin") == [APP]
        assert "Origin" in actual.headers["Vary"]
        exposed = actual.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "Location", "Retry-After", "Server-Timing", "X-Request-ID"} <= set(exposed)


def test_errors_can_be_read_too(service: tuple[httpx.Client, httpx.Client]) -> None:
    for client in service:
        for origin in (APP, LONG):
            headers = {"Origin": origin, "X-API-Key": KEY}
            for answer, status in (
                (client.post("/users", json={}, headers={"Origin": origin}), 401),
                (client.post("/users", content=b"x" * (1 << 21), headers=headers), 413),
                (client.post("/users", json={}, headers=headers), 422),
                (client.get("/users", headers=headers), 503),
                (client.get("/users", headers={**headers, "X-Request-Timeout-Ms": "soon"}), 400),
                (client.get("/nowhere", headers=headers), 404),
                (client.put("/users", headers=headers), 405),
            ):
                assert answer.status_code == status
                assert answer.headers.get_list("Access-Control-Allow-Origin") == [origin], answer.url


def test_other_origins_are_told_nothing(service: tuple[httpx.Client, httpx.Client]) -> None:
    for client in service:
        for origin in ("https://other.example.org", "http://app.example.org", f"{APP}.evil.example", "null"):
            refused = client.options("/users", headers={**PREFLIGHT, "Origin": origin})
            assert refused.status_code == 400
            assert refused.json()["type"] == "/problems/bad-request"
            for answer in (refused, client.get("/users", headers={"Origin": origin})):
                assert "Access-Control-Allow-Origin" not in answer.headers


def test_what_nginx_answers_itself_can_be_read_by_a_page(service: tuple[httpx.Client, httpx.Client]) -> None:
    through, _ = service
    for method, path, status in (("GET", "/metrics", 404), ("TRACE", "/users", 405)):
        answer = through.request(method, path, headers={"Origin": APP})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, APP)
    unfinished = b"POST /users HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with ExitStack() as open_sockets:
        for _ in range(2):
            connection = socket.create_connection(("127.0.0.1", through.base_url.port or 0))
            open_sockets.enter_context(connection).sendall(unfinished)
        until(lambda: through.get("/docs").status_code == 503, 5)
        busy = through.get("/docs", headers={"Origin": APP})
        assert busy.json()["type"] == "/problems/busy"
        assert busy.headers["Access-Control-Allow-Origin"] == APP
        assert "Retry-After" in busy.headers["Access-Control-Expose-Headers"]
        assert "Origin" in busy.headers["Vary"]  # a cache may not give it to another origin
        assert (
            "Access-Control-Allow-Origin" not in through.get("/docs", headers={"Origin": "https://a.example"}).headers
        )
        # What tells operators how it goes is never refused.
        for path in ("/connection-stats", "/health/live"):
            assert [through.request(method, path).status_code for method in ("GET", "HEAD")] == [200, 200]


class Noting(ThreadingTCPServer):
    """Notes each request's headers and answers 204."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(StreamRequestHandler):
    server: Noting

    def handle(self) -> None:
        self.rfile.readline()
        lines = iter(lambda: self.rfile.readline().decode().strip(), "")
        self.server.seen.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})
        self.wfile.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


@contextmanager
def noting(layout: Layout) -> Iterator[Noting]:
    with Noting(layout.api.number) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("trusted", "claimed", "scheme", "address", "passed_on"),
    [
        ("127.0.0.1", "203.0.113.7", "https", "203.0.113.7", "https"),
        ("127.0.0.0/8,10.0.0.0/8,2001:db8::/32", "6.6.6.6, 203.0.113.7, 10.1.2.3", "https", "203.0.113.7", "https"),
        ("127.0.0.1", "203.0.113.7", "gopher", "203.0.113.7", "http"),
        ("127.0.0.1", "nonsense", "https", "127.0.0.1", "https"),
        ("192.0.2.1", "203.0.113.7", "https", "127.0.0.1", "http"),
        ("", "203.0.113.7", "https", "127.0.0.1", "http"),
    ],
)
def test_a_trusted_proxy_says_who_asks_and_how(
    tmp_path: Path, trusted: str, claimed: str, scheme: str, address: str, passed_on: str
) -> None:
    with nginx(tmp_path, trusted_proxies=trusted) as layout, noting(layout) as api:
        httpx.get(url(layout), headers={"X-Forwarded-For": claimed, "X-Forwarded-Proto": scheme})
        (seen,) = api.seen
        assert (seen["x-forwarded-for"], seen["x-real-ip"], seen["x-forwarded-proto"]) == (address, address, passed_on)
        log = layout.logs / "nginx-access.log"
        until(lambda: f'"remote":"{address}","method":"GET","path":"/",' in log.read_text())


def test_an_nginx_that_can_not_know_who_asks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bin/nginx"
    bare.parent.mkdir()
    bare.write_text("#!/bin/sh\necho configure arguments: --without-everything >&2\n")
    bare.chmod(0o755)
    monkeypatch.setattr("stack.install.SYSTEM_PATH", f"{bare.parent}:{os.environ['PATH']}")
    layout = Layout.on_free_ports(tmp_path / "home")
    try:
        with pytest.raises(StackError) as refusal:
            configure(layout, load(_env_file=None, trusted_proxies="10.0.0.0/8"))
    finally:
        shutil.rmtree(layout.shared, ignore_errors=True)
    allowed = "allowed is none, since this nginx lacks http_realip_module"
    assert str(refusal.value) == f"TRUSTED_PROXIES=10.0.0.0/8: {allowed}"


def test_what_was_never_sent_may_be_repeated(tmp_path: Path) -> None:
    with nginx(tmp_path) as layout, socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", layout.api.number))
        full.listen(0)
        for _ in range(4):  # fills the queue of connections that nobody accepts
            connection = waiting.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(full.getsockname())
        for method in ("POST", "GET"):
            answer = httpx.request(method, f"{url(layout)}/users", timeout=20)
            assert (answer.status_code, answer.json()["type"]) == (504, "/problems/gateway-timeout")
            assert answer.json()["detail"] == "The API could not be reached in time. Nothing was sent."
            assert answer.headers["Retry-After"] == "1"


def test_what_was_sent_and_not_answered_is_in_doubt(tmp_path: Path) -> None:
    with nginx(tmp_path, timeout=1, request_timeout_ms=1) as layout, socket.socket() as deaf:
        limits = layout.home / "nginx/conf/limits.conf"
        assert "proxy_read_timeout 6s" in limits.read_text()
        deaf.bind(("127.0.0.1", layout.api.number))
        deaf.listen()
        answer = httpx.post(f"{url(layout)}/users", json={}, timeout=20)
        assert (answer.status_code, "Retry-After" in answer.headers) == (504, False)
        assert answer.json()["detail"] == "The API did not answer in time. A write may have happened."


STREAMS = """
import asyncio
from fastapi.responses import StreamingResponse
from app.main import serve

app = serve()
asked = asyncio.Event()

async def ticks(every, comment):
    yield b"data: first\\n\\n"
    while not asked.is_set():
        try:
            await asyncio.wait_for(asked.wait(), every)
        except TimeoutError:
            if comment:
                yield b": still here\\n\\n"
    yield b"data: last\\n\\n"

@app.get("/ticks")
async def stream(every: float, comment: bool) -> StreamingResponse:
    return StreamingResponse(ticks(every, comment), media_type="text/event-stream")

@app.get("/ask")
async def ask() -> None:
    asked.set()
"""


def test_events_are_passed_on_at_once_and_an_idle_stream_lives_by_its_comments(tmp_path: Path) -> None:
    (tmp_path / "streams.py").write_text(STREAMS)
    with nginx(tmp_path, timeout=1, request_timeout_ms=1) as layout:  # a read timeout of 6 s
        environment = {
            **os.environ,
            "MONGODB_URL": "mongodb://127.0.0.1:1/",
            "PYTHONPATH": f"{ROOT / 'api'}:{tmp_path}",
            "STATS_DIR": str(tmp_path / "statistics"),
            "REQUEST_TIMEOUT_MS": "1000",
        }
        uvicorn = [sys.executable, "-m", "uvicorn", "streams:app", "--port", str(layout.api.number)]
        with process(uvicorn, cwd=tmp_path, env=environment):
            until(lambda: reachable(f"http://127.0.0.1:{layout.api.number}/health/live"))
            with httpx.stream("GET", f"{url(layout)}/ticks?every=2&comment=true", timeout=20) as stream:
                lines = stream.iter_lines()
                assert next(lines) == "data: first"  # the answer has not ended
                # 6 s without a word, and nginx takes a stream for dead
                with httpx.stream("GET", f"{url(layout)}/ticks?every=2&comment=false", timeout=20) as silent:
                    heard = silent.iter_lines()
                    assert next(heard) == "data: first"
                    with pytest.raises(httpx.RemoteProtocolError):
                        list(heard)
                httpx.get(f"{url(layout)}/ask")
                said = [line for line in lines if line]
                assert said[-1] == "data: last"
                assert said.count(": still here") >= 2


def reachable(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.HTTPError:
        return False


def test_grafanas_address_without_its_slash_leads_there(tmp_path: Path) -> None:
    with nginx(tmp_path) as layout:
        shutil.copy(ROOT / "nginx/docker/grafana.conf", layout.home / "nginx/conf/locations")
        pid = int((layout.home / "run/nginx.pid").read_text())
        os.kill(pid, signal.SIGHUP)
        until(lambda: httpx.get(f"{url(layout)}/grafana").status_code == 301)
        answer = httpx.get(f"{url(layout)}/grafana?orgId=1", headers={"Host": "sluice.example.org"})
        assert answer.headers["Location"] == "/grafana/?orgId=1"


@pytest.fixture(params=["443", "8443"])
def production(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, int, int]]:
    """nginx with what nginx/docker/tls adds: the port of SLUICE_HTTPS_PORT, and those of plain HTTP and TLS here."""
    layout = Layout.on_free_ports(tmp_path)
    conf = tmp_path / "nginx/conf"
    http, tls = layout.prometheus.number, layout.http.number
    try:
        settings = load(_env_file=None, trusted_proxies="127.0.0.1, 10.0.0.0/8", cors_origins=f"{APP}, {LONG}")
        configure(layout, settings)
        for name, text in derived.for_containers(settings, int(request.param)).items():
            (conf / name).write_text(text)
        command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
        pem = ["-keyout", str(tmp_path / "privkey.pem"), "-out", str(tmp_path / "fullchain.pem")]
        subprocess.run([*command.split(), *pem], check=True, capture_output=True)
        for name, changes in {
            "listen.conf": {"8443": f"127.0.0.1:{tls}", "http2 on;": "", "/run/tls": str(tmp_path)},
            "tls.conf": {"8080": f"127.0.0.1:{http}"},
        }.items():
            text = (ROOT / "nginx/docker/tls" / name).read_text()
            for old, new in changes.items():
                assert old in text
                text = text.replace(old, new)
            (conf / name).write_text(text)
        with process([find("nginx") or "nginx", "-p", str(tmp_path / "nginx"), "-c", "conf/nginx.conf"]):
            until(lambda: httpx.get(f"http://127.0.0.1:{http}").status_code == 308)
            yield request.param, http, tls
    finally:
        shutil.rmtree(layout.shared, ignore_errors=True)


def test_plain_http_redirects_to_the_port_of_tls(production: tuple[str, int, int]) -> None:
    port, http, _ = production
    for host in ("sluice.example.org", f"sluice.example.org:{http}"):
        answer = httpx.get(f"http://127.0.0.1:{http}/users?limit=1", headers={"Host": host})
        assert answer.status_code == 308
        to = "sluice.example.org" if port == "443" else f"sluice.example.org:{port}"
        assert answer.headers["Location"] == f"https://{to}/users?limit=1"


@pytest.mark.parametrize(
    ("ciphers", "accepted"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", True),
        ("ECDHE-RSA-CHACHA20-POLY1305", True),
        ("AES128-GCM-SHA256", False),  # no forward secrecy
        ("ECDHE-RSA-AES128-SHA256", False),  # nor authenticated encryption
    ],
)
def test_tls_1_2_is_spoken_with_what_is_safe_in_it(
    production: tuple[str, int, int], ciphers: str, accepted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with (
        socket.create_connection(("127.0.0.1", production[2]), timeout=10) as connection,
        nullcontext() if accepted else pytest.raises(ssl.SSLError, match="handshake failure"),
        context.wrap_socket(connection) as encrypted,
    ):
        assert encrypted.version() == "TLSv1.2"


def test_each_client_behind_a_proxy_has_its_own_limit(production: tuple[str, int, int]) -> None:
    _, _, tls = production
    with httpx.Client(base_url=f"https://127.0.0.1:{tls}", verify=False) as client:  # noqa: S501 made above

        def ask(address: str) -> httpx.Response:
            return client.get("/users", headers={"X-Forwarded-For": address, "Origin": APP})

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, ["203.0.113.1"] * 800))
        limited = next(answer for answer in answers if answer.status_code == 429)
        assert (limited.headers["Access-Control-Allow-Origin"], limited.headers["Retry-After"]) == (APP, "1")
        assert ask("203.0.113.2").status_code == 503  # there is no API
