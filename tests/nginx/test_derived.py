"""nginx's derived files: the same for local processes and containers, but for what `stack.nginx` says differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings.model import load
from stack.configure import keeps_idle
from stack.nginx import VERSION, for_containers, for_processes, write

ROOT = Path(__file__).resolve().parents[2]
API = "127.0.0.1:8001"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"keep_alive": 120, "max_body_bytes": 7, "workers": 3, "max_requests_in_progress": 11},
        {"trusted_proxies": "10.0.0.0/8, 2001:db8::/32", "cors_origins": "https://a.example.org"},
        {"cors_origins": "*", "request_timeout_ms": 100_500, "timeout": 7},
    ],
)
def test_both_places_have_the_same_but_for_what_differs_on_purpose(given: dict[str, Any]) -> None:
    settings = load(_env_file=None, **given)
    processes, containers = for_processes(settings, API), for_containers(settings, 443)
    of_one = {"upstream.conf", "in_progress.conf"}  # of containers, nginx's entrypoint writes them
    assert processes.keys() ^ containers.keys() == of_one | {"requests_per_container", "to_https.conf"}
    for name in processes.keys() & containers.keys():
        differing = set(processes[name].splitlines()) ^ set(containers[name].splitlines())
        assert all(line.startswith("proxy_next_upstream_t") for line in differing), name
    assert processes["in_progress.conf"] == f"limit_conn in_progress {containers['requests_per_container'].strip()};\n"


def test_nginx_waits_for_the_api_longer_than_the_api_takes() -> None:
    assert "proxy_read_timeout 35s;" in for_containers(load(_env_file=None), 443)["limits.conf"]
    slow = load(_env_file=None, request_timeout_ms=100_500)
    assert "proxy_read_timeout 106s;" in for_processes(slow, API)["limits.conf"]


@pytest.mark.parametrize(("keep_alive", "graceful", "expected"), [(5, 30, 4_000), (60, 30, 11_200), (5, 1, 400)])
def test_nginx_uses_no_connection_for_as_long_as_a_stopping_worker_keeps_it(
    keep_alive: int, graceful: int, expected: int
) -> None:
    settings = load(_env_file=None, keep_alive=keep_alive, graceful_timeout=graceful)
    for files in (for_processes(settings, API), for_containers(settings, 443)):
        assert f"keepalive_timeout {expected}ms;" in files["upstream_connections.conf"]


def test_what_is_as_it_was_is_left_alone(tmp_path: Path) -> None:
    settings = load(_env_file=None)
    assert write(tmp_path, for_containers(settings, 443))
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert written.keys() == {*for_containers(settings, 443), VERSION}
    assert not write(tmp_path, for_containers(settings, 443))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    version = (tmp_path / VERSION).read_text()
    assert write(tmp_path, for_containers(settings, 8443))
    assert (tmp_path / VERSION).read_text() != version
    (tmp_path / "limits.conf").unlink()
    assert write(tmp_path, for_containers(settings, 8443))


def command(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As the one-shot runs it."""
    paths = f"{ROOT / 'api'}:{ROOT}"
    environment = {"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1", "PYTHONPATH": paths, **environment}
    one_shot = [sys.executable, "-m", "stack.nginx", str(folder), *options]
    return subprocess.run(one_shot, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("keep_alive", "first"), [("2", 1_600), ("10", 4_000)])
def test_before_the_api_idle_connections_are_kept_for_less_long_at_most(
    tmp_path: Path, keep_alive: str, first: int
) -> None:
    for options, environment, expected in (
        (["--before-the-api"], {}, 4_000),  # nothing is known yet
        (["--before-the-api"], {"KEEP_ALIVE": keep_alive}, first),
        ([], {"KEEP_ALIVE": keep_alive}, int(keep_alive) * 800),
    ):
        done = command(tmp_path, *options, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"keepalive_timeout {expected}ms;" in (tmp_path / "upstream_connections.conf").read_text()


def test_the_one_shot_reads_the_environment(tmp_path: Path) -> None:
    done = command(tmp_path, WORKERS="3", MAX_REQUESTS_IN_PROGRESS="7", SLUICE_HTTPS_PORT="8443", TRUSTED_PROXIES="")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "requests_per_container").read_text() == "21\n"
    assert "$host:8443$request_uri" in (tmp_path / "to_https.conf").read_text()
    assert command(tmp_path, WORKERS="3", MAX_REQUESTS_IN_PROGRESS="7", SLUICE_HTTPS_PORT="8443").stdout == ""


@pytest.mark.parametrize(
    ("name", "value"), [("KEEP_ALIVE", "never"), ("SLUICE_HTTPS_PORT", "0"), ("TRUSTED_PROXIES", "0.0.0.0/0")]
)
def test_the_one_shot_refuses_in_one_line_what_is_wrong(tmp_path: Path, name: str, value: str) -> None:
    done = command(tmp_path, **{name: value})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nginx: {name}='{value}': allowed is ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("built", "keeps"),
    [
        ("nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.8", False),
        ("nginx version: nginx/1.27.3\n", False),
        ("nginx version: nginx/1.27.4\n", True),
        ("nginx version: nginx/1.30.0 (Ubuntu)\nbuilt by gcc 1.2.3", True),
        ("nginx version: nginx/2.0.1\n", True),
        ("", False),
    ],
)
def test_a_reload_keeps_idle_connections_where_nginx_can(built: str, keeps: bool) -> None:
    assert keeps_idle(built) is keeps
