"""How up.sh and down.sh behave when something changes or goes wrong, and what nginx itself answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import ROOT, Stack, kill, until

PROBLEM = "application/problem+json"


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second stack, with a blank in its folder's name."""
    home = tmp_path / "another stack"
    home.mkdir()
    other = Stack(home)
    yield other
    other.script("down.sh", "--purge")
    assert other.processes() == []


def test_an_interrupted_start_leaves_nothing_running(other: Stack) -> None:
    with subprocess.Popen(
        [ROOT / "scripts/up.sh"],
        env=other.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as up:
        until(lambda: len(other.processes()) >= 5)  # up.sh, the process manager, three members
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


def test_what_outlives_a_killed_process_manager_is_ended(other: Stack) -> None:
    # A MongoDB of the caller's own must not be used.
    done = other.script("up.sh", "-d", MONGODB_URL="mongodb://nowhere.invalid")
    assert done.returncode == 0, done.stderr
    kill(int((other.home / "run/supervisord.pid").read_text()))
    until(lambda: not any("supervisord" in " ".join(process.cmdline()) for process in other.processes()))
    assert len(other.processes()) > 5
    done = other.script("down.sh")
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
