"""What docker-compose.prod.yml adds to the stack that test_stack.py leaves: its data stays."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine import Engine
from project import KEY, Project, runbook_problems
from traffic import person
from whole_stack import until

pytestmark = pytest.mark.timeout(500)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate and an API key."""
    folder = tmp_path_factory.mktemp("production")
    folder.chmod(0o755)
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run(
        [*command.split(), "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "api_key").write_text(f"{KEY}\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


@pytest.fixture(scope="module")
def user(project: Project) -> Any:
    """One from before."""
    created = project.http.post("/users", json=person(), headers={"X-API-Key": KEY})
    assert created.status_code == 201, created.text
    return created.json()


@pytest.fixture(scope="module")
def production(project: Project, user: Any, files: Path) -> Project:
    project.script("down.sh")
    assert project.containers() == []
    project.use("docker-compose.yml", "docker-compose.prod.yml")
    project.environment |= {
        "TLS_DIRECTORY": str(files),
        "API_KEY_FILE": str(files / "api_key"),
        "SLUICE_ADDRESS": "127.0.0.1",
        "SLUICE_HTTPS_PORT": str(project.port),
        "SLUICE_HTTP_PORT": str(project.port + 2),
        "API_CONTAINERS": "1",
    }
    project.script("up.sh", "-d")
    return project


@pytest.fixture(scope="module")
def https(production: Project, files: Path) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(files / "fullchain.pem"))
    with httpx.Client(base_url=f"https://localhost:{production.port}", verify=context, timeout=30) as client:
        yield client


def test_after_a_restart_of_everything_the_data_is_there(https: httpx.Client, user: Any) -> None:
    assert https.get(f"/users/{user['id']}").json() == user


@pytest.mark.parametrize("missing", ["TLS_DIRECTORY", "API_KEY_FILE"])
def test_it_refuses_to_start_without(production: Project, missing: str) -> None:
    done = production.run("docker", "compose", "config", "-q", **{missing: ""})
    assert done.returncode != 0
    assert missing in done.stderr


def test_an_empty_key_is_refused(production: Project, files: Path) -> None:
    empty = files / "empty"
    empty.touch()
    empty.chmod(0o644)
    done = production.run("docker", "compose", "run", "--rm", "--no-deps", "-T", "api", API_KEY_FILE=str(empty))
    assert done.returncode == 1
    assert "API_KEY_FILE" in done.stderr


def test_the_budget_counts_the_containers_that_run(production: Project) -> None:
    command = ("docker", "compose", "run", "--rm", "--no-deps", "-T", "api")
    done = production.run(*command, API_CONTAINERS="", CONNECTION_BUDGET="300")
    assert done.returncode == 1
    assert "2 containers × (2 workers × (100 pool + 2 monitors) + 3 observer) = 414 connections" in done.stderr


def test_two_keys_are_refused(production: Project) -> None:
    done = production.run("docker", "compose", "run", "--rm", "--no-deps", "-T", "api", API_KEY=KEY)
    assert done.returncode == 1
    assert "API_KEY and API_KEY_FILE are both set" in done.stderr


def test_plain_http_only_redirects(production: Project) -> None:
    answer = httpx.get(f"http://localhost:{production.port + 2}/users?limit=1")
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://localhost:{production.port}/users?limit=1"


def test_tls_with_hsts_and_http_2(https: httpx.Client, production: Project) -> None:
    answer = https.get("/health/ready")
    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(socket.create_connection(("127.0.0.1", production.port))) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() == "TLSv1.3"


def test_writing_needs_the_key(https: httpx.Client) -> None:
    assert https.post("/users", json=person()).status_code == 401
    assert https.post("/users", json=person(), headers={"X-API-Key": "another"}).status_code == 401
    assert https.post("/users", json=person(), headers={"X-API-Key": KEY}).status_code == 201
    assert https.get("/users").status_code == 200


def test_the_runbooks_commands_work_and_name_the_right_addresses(production: Project) -> None:
    assert runbook_problems(production, "production") == {}
    elsewhere = {"TLS_DIRECTORY": "", "API_KEY_FILE": "", "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    said = production.script("runbook.sh", "addresses", **elsewhere).splitlines()
    assert f"nginx https://127.0.0.1:{production.port}" in said
    assert f"prometheus http://127.0.0.1:{production.port + 1}" in said


def test_nobody_gets_more_than_their_share(https: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: https.get("/health/live"), range(1200)))
    outcomes = Counter(answer.status_code for answer in answers)
    assert set(outcomes) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["type"] == "/problems/too-many-requests"
    assert refused.headers["Retry-After"] == "1"


def test_every_service_is_limited_restarted_and_its_log_rotated(production: Project) -> None:
    for container in production.inspect(*production.containers()):
        host = container["HostConfig"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["CapDrop"] == ["ALL"]
        assert host["LogConfig"]["Config"] == {"max-size": "20m", "max-file": "5"}


def test_after_a_reboot_everything_comes_back_by_itself(
    engine: Engine, production: Project, https: httpx.Client, user: Any
) -> None:
    before = production.ids()
    engine.restart()

    def serves() -> bool:
        if production.ids() != before:
            return False
        try:
            return https.get(f"/users/{user['id']}").status_code == 200
        except httpx.TransportError:
            return False

    until(serves, 90)
    until(lambda: https.post("/users", json=person(), headers={"X-API-Key": KEY}).status_code == 201, 60)
