"""How up.sh and down.sh behave when something changes or goes wrong, and what nginx itself answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from whole_stack import ROOT, Stack, kill, until

PROBLEM = "application/problem+json"


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second stack, in a folder whose name means something to shells, supervisord and nginx."""
    home = tmp_path / "another's $HOME, 100% %(here)s {ü} & co"
    home.mkdir()
    other = Stack(home)
    yield other
    other.script("down.sh", "--purge")
    assert other.processes() == []


@pytest.mark.parametrize("reader_is_gone", [False, True], ids=["alone", "up.sh | tee, which Ctrl-C ends first"])
def test_an_interrupted_start_leaves_nothing_running(other: Stack, reader_is_gone: bool) -> None:
    with subprocess.Popen(
        [ROOT / "scripts/up.sh"],
        env=other.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as up:
        until(lambda: len(other.processes()) >= 5)  # up.sh, the process manager, three members
        if reader_is_gone:
            assert up.stdout is not None
            up.stdout.close()
        os.killpg(up.pid, signal.SIGINT)
        _, errors = up.communicate(timeout=60)
    assert (up.returncode, errors) == (130, "up: interrupted\n")
    assert other.processes() == []


def test_shared_memory_that_others_may_change_is_not_used(other: Stack) -> None:
    other.layout.shared.mkdir()
    other.layout.shared.chmod(0o777)
    try:
        for script, arguments in (("up.sh", ["-d"]), ("down.sh", [])):
            done = other.script(script, *arguments)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
            assert f": {other.layout.shared}: allowed is a folder that this user owns and nobody else" in done.stderr
    finally:
        other.layout.shared.rmdir()


def test_two_starts_at_once_make_one_stack(other: Stack) -> None:
    starts = [
        subprocess.Popen(
            [ROOT / "scripts/up.sh", "-d"],
            env=other.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [start.communicate(timeout=120)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    assert any(f"waiting for another script that is at work in {other.home}" in text for text in said)
    assert len([process for process in other.processes() if "supervisord" in " ".join(process.cmdline())]) == 1
    assert other.http.get("/health/ready").status_code == 200


def test_down_ends_a_start_that_is_under_way(other: Stack) -> None:
    with subprocess.Popen(
        [ROOT / "scripts/up.sh", "-d"], env=other.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as up:
        until(lambda: len(other.processes()) >= 5)
        done = other.script("down.sh")
        _, errors = up.communicate(timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"stopping up.sh (process {up.pid})" in done.stdout
    assert (up.returncode, errors) == (130, "up: interrupted\n")
    assert other.processes() == []


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
def test_a_stack_in_adverse_circumstances(other: Stack) -> None:
    # A MongoDB of the caller's own must not be used, nor a proxy for what listens here.
    proxies = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "HTTPS", "ALL")}
    nothing_excepted = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "all_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
        "NO_PROXY": "",
    }
    tiny_logs = {"SLUICE_LOG_MAX_BYTES": "65536"}
    given = proxies | nothing_excepted | tiny_logs | {"MONGODB_URL": "mongodb://nowhere.invalid"}
    done = other.script("up.sh", "-d", **given)
    assert done.returncode == 0, done.stderr
    assert other.http.post("/users", json={"email": "a@example.org", "name": "A", "age": 3}).status_code == 201

    # Logs are kept small, and go on.
    for number in range(300):
        assert other.http.get(f"/health/live?{number}").status_code == 200
    member = other.layout.logs / f"mongod-{other.layout.mongo[0].number}.log"
    for log in (other.layout.logs / "nginx-access.log", member):
        until(lambda log=log: log.with_name(f"{log.name}.1").exists() and log.stat().st_size <= 65_536)  # type: ignore[misc]
    other.http.get("/health/live")
    until(lambda: (other.layout.logs / "nginx-access.log").read_text().startswith('{"time"'))

    # Whoever kills the masters of servers leaves their workers.
    def kill_masters() -> None:
        api, nginx = other.pid("api"), other.nginx()
        workers = [child for pid in (api, nginx) for child in psutil.Process(pid).children()]
        kill(nginx)
        kill(api)
        assert any(worker.is_running() for worker in workers)

    kill_masters()
    other.up(**given)
    assert other.http.get("/health/ready").status_code == 200
    kill_masters()
    kill(int((other.home / "run/supervisord.pid").read_text()))
    assert len(other.processes()) >= 4
    done = other.script("down.sh", SLUICE_MONGO_PORT="nonsense")
    assert (done.returncode, done.stderr) == (0, "")
    assert other.processes() == []


def test_an_address_that_only_prometheus_may_ask_does_not_exist(stack: Stack) -> None:
    for path in ("/metrics", "//metrics", "/%6detrics", "/metrics/", "/users/../metrics", "/pool/control"):
        answer = raw(stack, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 404 "), path
        assert PROBLEM in answer


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        ("nonsense\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505, "version-not-supported"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad-request"),
        ("TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed"),
        ("POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "not-implemented"),
        ("POST /users HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "bad-request"),
        ("POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n", 413, "content-too-large"),
        (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri-too-long"),
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {'a' * 9000}\r\n\r\n", 431, "headers-too-large"),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_what_nginx_refuses_is_a_problem_too(stack: Stack, request_: str, status: int, kind: str) -> None:
    answer = raw(stack, request_)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert PROBLEM in answer
    assert f'"type":"/problems/{kind}"' in answer


@pytest.mark.parametrize(
    ("request_", "status", "kind"),
    [
        ("BREW /users HTTP/1.1\r\nHost: localhost\r\n\r\n", 501, "not-implemented"),
        ("GET /users?city=München HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad-request"),
        ("GET /users HTTP/1.1\r\nHost: localhost\r\nX: \x01\r\n\r\n", 400, "bad-request"),
        ("POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 415, "unsupported-media-type"),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_what_the_apis_server_refuses_is_a_problem_with_nginxs_id(
    stack: Stack, request_: str, status: int, kind: str
) -> None:
    head, _, body = raw(stack, request_).partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert PROBLEM in head
    problem = json.loads(body)
    assert problem["type"] == f"/problems/{kind}"
    assert f"x-request-id: {problem['request_id']}" in head.lower()


def test_a_request_id_is_kept_if_it_is_harmless(stack: Stack) -> None:
    assert stack.http.get("/health/live", headers={"X-Request-ID": "a.b-1"}).headers["x-request-id"] == "a.b-1"
    made = stack.http.get("/health/live", headers={"X-Request-ID": 'a"b'}).headers["x-request-id"]
    assert len(made) == 32


def test_while_the_api_is_down_nginx_says_when_to_come_back(stack: Stack) -> None:
    stack.control("stop", "api")
    try:
        answers = [stack.http.get("/users"), stack.http.post("/users", json={})]
    finally:
        stack.control("start", "api")
        until(lambda: stack.http.get("/health/ready").status_code == 200)
        stack.wait_for_workers()
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["type"] == "/problems/service-unavailable"


def raw(stack: Stack, request: str) -> str:
    """What nginx answers to these bytes."""
    with socket.create_connection(("127.0.0.1", stack.layout.http.number), timeout=5) as connection:
        connection.sendall(request.encode())
        answer = b""
        while b"}" not in answer and (more := connection.recv(4096)):
            answer += more
    return answer.decode()


def test_a_changed_setting_is_a_reload_of_whom_it_concerns(stack: Stack) -> None:
    driver = stack.stats()["driver"]
    master, workers, nginx = stack.pid("api"), set(stack.wait_for_workers().values()), stack.nginx()
    stack.up("--driver", driver, SLOW_OPERATION_MS="250", MAX_BODY_BYTES="2000")
    assert (stack.pid("api"), stack.nginx()) == (master, nginx)
    assert not workers & set(stack.wait_for_workers().values())
    assert stack.http.post("/users", content=b" " * 3_000).status_code == 413
    stack.up("--driver", driver)
    assert (stack.pid("api"), stack.nginx()) == (master, nginx)
    assert stack.http.post("/users", content=b" " * 3_000).status_code != 413
