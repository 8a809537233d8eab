"""Secrets that can be recognised are planted in a stack, everything that can go wrong does, and nobody has told them.

What is looked at: every answer, what every script says, every file of the stack, and the command lines of all
processes, again and again: one that lives for less than some 20 ms may be missed. Only the files that are made for
secrets may have them, and nobody but their owner may read those.
"""

from __future__ import annotations

import base64
import gzip
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from whole_stack import ROOT, Stack, kill, until

from stack.free_ports import free_ports

pytestmark = pytest.mark.timeout(600)

TRICKY = "@:/?#[]%41+&='\"\\"
"""What has to be escaped somewhere, in URLs, JSON, configuration files, shells; it follows each mark."""
SIGN = "Zk7q"
"""How each mark begins."""
API_KEY = "Zk7qApiKey"
OLD_KEYS = ("Zk7qOldKey", "Zk7qOlderKey")
"""In a file, for a while."""
CALLERS_KEY = "Zk7qCallersKey"
"""A wrong one: maybe that of another service."""
PASSWORDS = {"admin": "Zk7qAdmin", "app": "Zk7qApp", "monitoring": "Zk7qMonitoring"}
OTHERS = "Zk7qOthersPassword"
"""In connection strings that are wrong."""
KEY_FILE = "Zk7qKeyFile"
MARKS = (API_KEY, *OLD_KEYS, CALLERS_KEY, *PASSWORDS.values(), OTHERS, KEY_FILE)

SECRET_FILES = {
    *(f"secrets/{user}_password" for user in PASSWORDS),
    "secrets/mongo_key",
    "secrets/mongodb_url",
    "secrets/monitoring_url",
    "run/api.json",  # the API key, where a setting gives it
}


def traces(mark: str) -> Iterator[bytes]:
    """What is left of a mark in text of any encoding, base64 included."""
    raw = mark.encode()
    yield raw
    yield raw.lower()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        yield encoded[ceil(before * 8 / 6) : (before + len(raw)) * 8 // 6]


GZIP = b"\x1f\x8b"
"""How what is packed begins: a backup."""
TRACES = [(mark, trace) for mark in MARKS for trace in traces(mark)]
SIGNS = tuple(traces(SIGN))


def told(said: bytes) -> set[str]:
    """The marks in it."""
    if not any(sign in said for sign in SIGNS):  # of which there is much
        return set()
    return {mark for mark, trace in TRACES if trace in said}


@dataclass
class Witness:
    """Who hears everything: `answers` and `outputs` by what was asked, `commands` with a mark."""

    stack: Stack
    answers: list[tuple[str, int, bytes]] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)
    commands: set[bytes] = field(default_factory=set)
    watched: int = 0

    def asks(
        self,
        method: str,
        url: str,
        *,
        key: str | None = API_KEY + TRICKY,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        content: bytes | None = None,
    ) -> int:
        """The status; with the right key, unless told otherwise."""
        given = ({"X-API-Key": key} if key else {}) | dict(headers or {})
        answer = httpx.request(method, url, headers=given, json=json, content=content, timeout=30)
        self.answers.append((f"{method} {url[:100]}", answer.status_code, _whole(answer)))
        return answer.status_code

    def says(self, port: int, request: bytes) -> None:
        """As it is, and not what a library would make of it."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65_536), b""))
        status = int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0
        self.answers.append((repr(request[:60]), status, answer))

    def runs(self, name: str, *arguments: str, wrong: bool = False, **environment: str) -> None:
        """One of the scripts; `wrong`: it has to refuse."""
        done = self.stack.script(name, *arguments, **environment)
        assert (done.returncode != 0) == wrong, done.stdout + done.stderr
        what = f"{name} {' '.join(arguments)} {sorted(environment)}"
        self.outputs[what] = (done.stdout + done.stderr).encode()

    def watch(self, stopped: threading.Event) -> None:
        """All processes of this machine, the short-lived ones of scripts included, but the shortest."""
        while not stopped.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    command = path.read_bytes()
                except OSError:  # it has ended
                    continue
                self.watched += 1
                if told(command):
                    self.commands.add(command)


def _whole(answer: httpx.Response) -> bytes:
    head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
    return head.encode() + answer.content


def _unpacked(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(GZIP) else content


def person(number: int) -> dict[str, object]:
    return {"email": f"planted{number}@example.org", "name": "P", "age": 30}


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    """Of the worst day of a stack with planted secrets, on both drivers; it's still up, as talkative as it can be."""
    home = Path(tempfile.mkdtemp(prefix="sluice-planted-"))
    stack = Stack(home)
    stack.environment |= {
        "API_KEY": API_KEY + TRICKY, "LOG_LEVEL": "DEBUG", "ACCESS_LOG": "all", "SLOW_OPERATION_MS": "1",
        "REQUEST_TIMEOUT_MS": "2000",
    }  # fmt: skip
    stack.layout.secrets.mkdir(mode=0o700)
    for user, mark in PASSWORDS.items():
        _plant(stack.layout.secrets / f"{user}_password", mark + TRICKY)
    _plant(stack.layout.secrets / "mongo_key", KEY_FILE * 20)
    witness = Witness(stack)
    stopped = threading.Event()
    watcher = threading.Thread(target=witness.watch, args=(stopped,))
    watcher.start()
    try:
        for driver in ("motor", "pymongo"):
            stack.environment["MONGODB_DRIVER"] = driver
            witness.runs("up.sh", "-d")
            stack.wait_for_workers()
            mongodb_is_away(witness)
            password_is_wrong(witness)
            boot_fails(witness, driver)
        usual(witness)
        refused(witness)
        processes_are_killed(witness)
        key_is_replaced(witness)
        settings_are_wrong(witness)
        scripts(witness)
        yield witness
    finally:
        stack.script("down.sh", "--purge")
        stopped.set()
        watcher.join()
        left = stack.processes()
        shutil.rmtree(home, ignore_errors=True)
    assert left == []


def _plant(path: Path, text: str) -> None:
    path.touch(mode=0o400)
    path.write_text(text)


# What happens to it


def usual(witness: Witness) -> None:
    stack = witness.stack
    for path in ("/", "/health", "/health/live", "/health/ready", "/connection-stats", "/openapi.json", "/docs"):
        witness.asks("GET", stack.url + path)
    witness.asks("GET", f"{stack.api_url}/metrics")
    witness.asks("GET", f"http://127.0.0.1:{stack.layout.nginx_status.number}/stub_status")
    witness.asks("GET", f"http://127.0.0.1:{stack.layout.nginx_exporter.number}/metrics")
    for path in ("status/config", "status/flags", "targets", "rules", "query?query=%7B__name__!=%22%22%7D"):
        witness.asks("GET", f"{stack.prometheus_url}/api/v1/{path}", key=None)
    assert witness.asks("POST", f"{stack.url}/users", json=person(1)) == 201
    bearer = {"Authorization": f"Bearer {API_KEY}{TRICKY}"}
    assert witness.asks("POST", f"{stack.url}/users", key=None, headers=bearer, json=person(2)) == 201
    assert witness.asks("POST", f"{stack.url}/users", json=person(1)) == 409


def refused(witness: Witness) -> None:
    stack = witness.stack
    for url in (stack.url, stack.api_url):
        for key in (None, CALLERS_KEY, CALLERS_KEY + TRICKY):
            assert witness.asks("POST", f"{url}/users", key=key, json=person(3)) == 401
        for scheme in ("Bearer", "Basic", "Token"):
            witness.asks("POST", f"{url}/users", key=None, headers={"Authorization": f"{scheme} {CALLERS_KEY}"})
        as_json = {"Content-Type": "application/json"}
        witness.asks("POST", f"{url}/users", headers=as_json, content=b'{"email": ')
        witness.asks("POST", f"{url}/users", headers=as_json, content=b'{"email": 1}')
        witness.asks("POST", f"{url}/users", headers=as_json, content=b"x" * 2_000_000)
        witness.asks("GET", f"{url}/nothing")
        witness.asks("DELETE", f"{url}/users")
        witness.asks("GET", f"{url}/users?limit=many")
        witness.asks("GET", f"{url}/users/{'x' * 9000}")
        witness.asks("GET", f"{url}/users", headers={"X-Long": "x" * 40_000})
    # Where it doesn't belong; of addresses, nginx logs what it gets.
    in_address = quote(API_KEY + TRICKY, safe="")
    answer = httpx.get(f"{stack.api_url}/users/{in_address}")  # which repeats what it was asked for
    assert answer.status_code in (404, 422)
    witness.asks("GET", f"{stack.api_url}/users?limit={in_address}", key=None)
    witness.asks("GET", f"{stack.api_url}/health", headers={"X-Request-ID": in_address, "traceparent": in_address})
    line = f"X-API-Key: {API_KEY}{TRICKY}\r\n".encode()
    for port in (stack.layout.http.number, stack.layout.api.number):
        for request in (
            b"POST /users HTTP/1.1\r\nHost: h\r\n" + line.replace(b": ", b" : ") + b"\r\n",
            b"POST /users HTTP/1.1\r\nHost: h\r\n" + line.rstrip() + b"\r" + line + b"\r\n",
            b"POST /users HTTP/1.1\r\n" + line + b"Content-Length: x\r\n\r\n",
            b"POST /users HTTP/1.1\r\nHost: h\r\n"
            + line
            + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST /users HTTP/1.1\r\nHost: h\r\n" + line.replace(b"\r", b"") + b" folded\r\n\r\n",
            b"POST /users HTTP/9.9\r\nHost: h\r\n" + line + b"\r\n",
            line + b"\r\n",
            b"POST /users HTTP/1.1\r\nHost: h\r\n" + line + b"Content-Length: 20\r\n\r\n{",
            b"POST /users HTTP/1.1\r\nHost: h\r\n" + line.strip() + b"\0\r\n\r\n",
        ):
            witness.says(port, request)


def mongodb_is_away(witness: Witness) -> None:
    stack = witness.stack
    members = [stack.pid(f"mongod-{port.number}") for port in stack.layout.mongo]
    for member in members:
        os.kill(member, signal.SIGSTOP)
    try:
        assert witness.asks("POST", f"{stack.url}/users", json=person(4)) in (503, 504)
        assert witness.asks("GET", f"{stack.url}/users") in (503, 504)
        for path in ("/health", "/health/ready", "/connection-stats"):
            witness.asks("GET", stack.url + path)
        witness.asks("GET", f"{stack.api_url}/metrics")
    finally:
        for member in members:
            os.kill(member, signal.SIGCONT)
    stack.wait_until_whole()


def password_is_wrong(witness: Witness) -> None:
    """Somebody has changed it, and the workers start anew."""
    stack = witness.stack

    def change(password: str) -> None:
        with stack.member(stack.wait_for_primary(), "admin") as client:
            for user in ("app", "monitoring"):
                client.admin.command("updateUser", user, pwd=password.replace("*", PASSWORDS[user]))

    change(f"{OTHERS}{TRICKY}")
    old = set(stack.workers().values())
    stack.control("signal", "HUP", "api")
    try:
        until(lambda: b"Authentication failed" in stack.api_log.read_bytes(), 30)
        until(lambda: witness.asks("GET", f"{stack.url}/health/ready") == 503, 30)
        for path in ("/health", "/connection-stats", "/users"):
            witness.asks("GET", stack.url + path)
        assert witness.asks("POST", f"{stack.url}/users", json=person(5)) >= 500
        witness.asks("GET", f"{stack.api_url}/metrics")
    finally:
        change(f"*{TRICKY}")
    stack.wait_for_workers(without=old)


def processes_are_killed(witness: Witness) -> None:
    stack = witness.stack
    worker = next(iter(stack.workers().values()))
    kill(worker)
    stack.wait_for_workers(without={worker})
    master = stack.pid("api")
    kill(master)
    until(lambda: stack.pid("api") not in (0, master), 30)
    stack.wait_for_workers()


def key_is_replaced(witness: Witness) -> None:
    """In a file, as it should be; and then by the setting, as it was."""
    stack = witness.stack
    file = stack.home / "api_key"
    before = API_KEY + TRICKY
    for number, mark in enumerate(OLD_KEYS):
        file.write_text(f"{mark}{TRICKY}\n")
        witness.runs("up.sh", "-d", API_KEY="", API_KEY_FILE=str(file))
        assert witness.asks("POST", f"{stack.url}/users", key=mark + TRICKY, json=person(10 + number)) == 201
        assert witness.asks("POST", f"{stack.url}/users", key=before, json=person(20)) == 401
        before = mark + TRICKY
    file.unlink()
    witness.runs("up.sh", "-d")
    assert witness.asks("POST", f"{stack.url}/users", json=person(12)) == 201


def settings_are_wrong(witness: Witness) -> None:
    url = f"mongodb://app:{quote(OTHERS + TRICKY, safe='')}@127.0.0.1:1/"
    two_lines = witness.stack.home / "two_lines"
    two_lines.write_text(f"{OTHERS}\n{OTHERS}\n")
    for given in (
        {"API_KEY": f"{OTHERS} {TRICKY}"},
        {"API_KEY": "", "API_KEY_FILE": str(two_lines)},
        *({name: url} for name in ("CORS_ORIGINS", "DATABASE_NAME", "LOG_LEVEL", "MAX_POOL_SIZE", "TRUSTED_PROXIES")),
    ):
        witness.runs("up.sh", "-d", wrong=True, **given)
    witness.runs("up.sh", "-d", API_KEYS=OTHERS)  # not ours, it warns
    two_lines.unlink()


def boot_fails(witness: Witness, driver: str) -> None:
    """Of the service by itself: wrong URLs end it, with a wrong password it never gets ready."""
    stack = witness.stack
    encoded = quote(OTHERS + TRICKY, safe="")
    host = stack.layout.hosts[0]
    port, *_ = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MONGODB", "API_KEY"))}
    environment |= {
        "STATS_DIR": str(stack.home / "statistics"), "LOG_LEVEL": "DEBUG", "MONGODB_DRIVER": driver,
        "BIND": f"127.0.0.1:{port}", "SERVER_SELECTION_TIMEOUT_MS": "500", "WORKERS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "gunicorn", "main:app"]
    for url in (
        f"mongodb://app:{encoded}@{host}/?nonsense=1",
        f"mongodb://app:{OTHERS}{TRICKY}@{host}/",
        f"mongodb://app:{OTHERS}%zz@{host}/",
        f"mongodb://app:{OTHERS}@{host}/?w=0",
        f"postgres://app:{OTHERS}@{host}/",
    ):
        done = subprocess.run(
            command, cwd=ROOT / "api", env=environment | {"MONGODB_URL": url}, capture_output=True, timeout=60
        )
        assert done.returncode != 0, url
        witness.outputs[f"gunicorn {url}"] = done.stdout + done.stderr
    given = environment | {"MONGODB_URL": f"mongodb://app:{encoded}@{host}/?replicaSet=rs0&authSource=admin"}
    log = stack.home / "boot.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT / "api", env=given, stdout=output, stderr=output) as api,
    ):
        try:
            until(lambda: b"Authentication failed" in log.read_bytes(), 30)
            assert witness.asks("GET", f"http://127.0.0.1:{port}/health/ready") == 503
            witness.asks("GET", f"http://127.0.0.1:{port}/health")
        finally:
            api.terminate()
            api.wait()


def scripts(witness: Witness) -> None:
    log = str(witness.stack.api_log)
    for report in ("pool", "slow", "errors"):
        witness.runs("logs.sh", report, log)
    for command in ("addresses", "services", "workers", "stats", "health", "metrics", "alerts", "targets", "disk"):
        witness.runs("runbook.sh", command)
    for service in ("api", "nginx", "prometheus", "mongo"):
        witness.runs("runbook.sh", "log", service)
    witness.runs("seed.sh", "--users", "10")
    backup = witness.stack.home / "backup"
    witness.runs("backup.sh", str(backup))
    witness.runs("up.sh", "-d", MAX_POOL_SIZE="7")  # a reload
    witness.runs("up.sh", "-d", PRELOAD="true")
    witness.stack.wait_for_workers()


# What became known


def test_it_was_a_bad_day(witness: Witness) -> None:
    """Else nothing is proved."""
    assert {200, 201, 400, 401, 404, 405, 409, 413, 414, 422, 431, 503} <= {status for _, status, _ in witness.answers}
    assert b"Authentication failed" in witness.stack.api_log.read_bytes()
    assert b"Execution time of " in witness.stack.api_log.read_bytes()
    assert witness.watched > 10_000
    assert len(witness.outputs) > 25


def test_a_secret_would_be_found() -> None:
    secret = API_KEY + TRICKY
    for said in (
        secret,
        quote(secret, safe=""),
        repr(secret.encode()),
        secret.lower(),
        *(base64.b64encode(f"{'x' * shift}:{secret}".encode()).decode() for shift in range(3)),
    ):
        assert told(said.encode()) == {API_KEY}, said


def test_a_secret_in_a_backup_would_be_found() -> None:
    packed = gzip.compress(f"before {API_KEY}{TRICKY} after".encode())
    assert told(packed) == set()
    assert told(_unpacked(packed)) == {API_KEY}


def test_no_answer_tells_a_secret(witness: Witness) -> None:
    assert [(what, told(answer)) for what, _, answer in witness.answers if told(answer)] == []


def test_no_script_and_no_failed_start_says_one(witness: Witness) -> None:
    assert {what: output for what, output in witness.outputs.items() if told(output)} == {}


def test_no_command_line_that_was_seen_has_one(witness: Witness) -> None:
    assert witness.commands == set()


def test_no_environment_of_a_process_has_one_either(witness: Witness) -> None:
    """Only this user could read it; but what is inherited goes on to whatever is started."""
    environments = [Path(f"/proc/{process.pid}/environ").read_bytes() for process in witness.stack.processes()]
    assert len(environments) > 10
    assert [environment for environment in environments if told(environment)] == []


def test_only_the_files_for_secrets_have_them_and_only_their_owner_reads_those(witness: Witness) -> None:
    home, shared = witness.stack.home, witness.stack.layout.shared
    files = [
        path for folder in (home, shared) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    logs = {path.name for path in files if path.parent == witness.stack.layout.logs}
    assert {"api.log", "nginx-access.log", "nginx.out", "prometheus.out", "supervisord.log"} <= logs
    assert home / "backup" in files
    holders = {path for path in files if told(_unpacked(path.read_bytes()))}
    assert {str(path.relative_to(home)) for path in holders} == SECRET_FILES
    for path in holders:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE(witness.stack.layout.secrets.stat().st_mode) == 0o700
    for folder in (shared, witness.stack.statistics):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0, folder
