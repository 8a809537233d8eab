"""up.sh and down.sh, beside a stack that runs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from whole_stack import ROOT, Stack, kill, until


@pytest.fixture
def other(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A second stack, that never gets to run."""
    other = Stack(tmp_path, venv=stack.home / "venv")
    yield other
    if left := other.processes():
        other.script("down.sh", "--purge")
    assert left == []


def test_up_again_changes_nothing(stack: Stack) -> None:
    workers = stack.wait_for_workers()
    programs = stack.control("status")
    pids = {line.split()[0]: stack.pid(line.split()[0]) for line in programs.splitlines()}
    assert len(pids) == 8
    stack.up("--driver", stack.stats()["driver"])
    assert {name: stack.pid(name) for name in pids} == pids
    assert stack.workers() == workers


def test_changed_settings_apply_when_it_is_run_again(stack: Stack) -> None:
    driver, members = stack.stats()["driver"], [stack.pid(f"mongod-{port.number}") for port in stack.layout.mongo]
    stack.up("--driver", driver, MAX_POOL_SIZE="50")
    stack.wait_for_workers()
    assert stack.stats()["pool_config"]["max_pool_size"] == 50
    stack.up("--driver", driver)
    stack.wait_for_workers()
    assert stack.stats()["pool_config"]["max_pool_size"] == 100
    assert [stack.pid(f"mongod-{port.number}") for port in stack.layout.mongo] == members


def test_a_reload_that_was_missed_is_made_up_for(stack: Stack) -> None:
    driver = stack.stats()["driver"]
    given = ("--driver", driver)
    up = subprocess.Popen(
        [str(ROOT / "scripts/up.sh"), "-d", *given],
        env=stack.environment | {"MAX_POOL_SIZE": "60", "MAX_BODY_BYTES": "2000"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    until(lambda: '"MAX_POOL_SIZE": "60"' in stack.layout.api_settings.read_text())
    os.killpg(up.pid, signal.SIGINT)  # the files are written, and nobody has read them yet
    assert up.wait(timeout=60) == 130
    assert stack.stats()["pool_config"]["max_pool_size"] == 100
    stack.up(*given, MAX_POOL_SIZE="60", MAX_BODY_BYTES="2000")
    stack.wait_for_workers()
    assert stack.stats()["pool_config"]["max_pool_size"] == 60
    assert stack.http.post("/users", content=b" " * 3_000).status_code == 413
    stack.up(*given)
    stack.wait_for_workers()


def test_after_the_process_manager_was_killed_up_starts_everything_anew(stack: Stack, user_ids: list[str]) -> None:
    driver, old = stack.stats()["driver"], {process.pid for process in stack.processes()}
    kill(int((stack.home / "run/supervisord.pid").read_text()))
    stack.up("--driver", driver)
    stack.wait_until_whole()
    assert not old & {process.pid for process in stack.processes()}
    assert stack.http.get(f"/users/{user_ids[0]}").status_code == 200


def test_a_process_manager_that_is_silent_is_not_taken_for_dead(stack: Stack) -> None:
    manager = psutil.Process(int((stack.home / "run/supervisord.pid").read_text()))
    before = {process.pid for process in stack.processes()}
    manager.suspend()
    try:
        done = stack.script("up.sh", "-d", "--driver", stack.stats()["driver"])
    finally:
        manager.resume()
    line = "up: the process manager has said nothing for 10 s; down.sh ends it"
    assert (done.returncode, done.stderr.splitlines()) == (1, [line])
    assert {process.pid for process in stack.processes()} == before


@pytest.mark.parametrize(
    ("setting", "program"),
    [
        ("SLUICE_PORT", "nginx"),
        ("SLUICE_API_PORT", "api"),
        ("SLUICE_NGINX_STATUS_PORT", "nginx's status"),
        ("SLUICE_NGINX_EXPORTER_PORT", "nginx-exporter"),
        ("SLUICE_PROMETHEUS_PORT", "prometheus"),
        ("SLUICE_MONGO_PORT", "mongod"),
    ],
)
def test_a_taken_port_is_refused_in_one_line(stack: Stack, other: Stack, setting: str, program: str) -> None:
    taken = stack.environment[setting]
    done = other.script("up.sh", "-d", **{setting: taken})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"up: port {taken} for {program}")
    assert line.endswith(f"choose another with {setting}")
    owner = re.search(r" by \S+ \(process (\d+)\)", line)
    assert owner is not None
    assert psutil.pid_exists(int(owner[1]))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"MIN_POOL_SIZE": "200"}, "up: MIN_POOL_SIZE=200: allowed is 0 to MAX_POOL_SIZE, which is 100"),
        ({"MONGODB_DRIVER": "mongoose"}, "up: MONGODB_DRIVER='mongoose': allowed is pymongo or motor"),
        ({"SLUICE_PORT": "http"}, "up: SLUICE_PORT='http': allowed is a port, 1 to 65535"),
        ({"PROMETHEUS_RETENTION": "abc"}, "up: PROMETHEUS_RETENTION='abc': allowed is a duration"),
        ({"CONNECTION_BUDGET": "100"}, "up: CONNECTION_BUDGET=100: 1 containers × (2 workers × (100 pool"),
    ],
)
def test_a_wrong_setting_stops_the_start_in_one_line(other: Stack, settings: dict[str, str], line: str) -> None:
    done = other.script("up.sh", "-d", **settings)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(line)


@pytest.mark.parametrize("wrong", [{"CONNECTION_BUDGET": "100"}, {"DATABASE_NAME": "a.b"}, {"KEEP_ALIVE": "soon"}])
def test_a_running_stack_serves_on_when_new_settings_are_wrong(stack: Stack, wrong: dict[str, str]) -> None:
    workers = stack.wait_for_workers()
    before = {path: path.stat().st_mtime_ns for path in stack.home.rglob("*.conf")}
    done = stack.script("up.sh", "-d", **wrong)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(f"up: {next(iter(wrong))}=")
    assert {path: path.stat().st_mtime_ns for path in stack.home.rglob("*.conf")} == before
    assert stack.workers() == workers
    assert stack.http.get("/health/ready").status_code == 200


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, which may have a `.env` of its own."""
    root = tmp_path / "copy"
    for folder in ("api", "mongo", "nginx", "prometheus", "scripts", "stack"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return root


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('PORT=1\nAPI_KEY="geheim\n', "line 2: API_KEY: the quotation marks don't end where the value does: "),
        ("MAX_POOLSIZE=5\n", "line 1: MAX_POOLSIZE is no setting: allowed is MAX_POOL_SIZE"),
        ("MONGODB_URL=mongodb://u:geheim@h/\n", "MONGODB_URL is not for this: this stack runs a MongoDB of its own; "),
        ("SLUICE_RUN=docker\n", "SLUICE_RUN: allowed is it in the environment only"),
    ],
)
def test_a_wrong_file_stops_the_start_in_one_line(other: Stack, copy: Path, text: str, line: str) -> None:
    (copy / ".env").write_text(text)
    done = subprocess.run([copy / "scripts/up.sh", "-d"], env=other.environment, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert f"/.env {line}" in done.stderr or f"/.env: {line}" in done.stderr
    assert "geheim" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("file", "mistake"),
    [
        ("api/app/main.py", "import app.nothing\n"),
        # Before supervisord takes it for started, after 1 s, and surely later.
        ("stack/gunicorn_conf.py", "import app.nothing\n"),
        ("api/app/main.py", "import time\ntime.sleep(2)\nimport app.nothing\n"),
    ],
    ids=["in a worker", "at once", "after a while"],
)
def test_a_mistake_in_the_code_is_told_at_once(other: Stack, copy: Path, file: str, mistake: str) -> None:
    code = copy / file
    code.write_text(f"{code.read_text()}\n{mistake}")
    started = time.monotonic()
    try:
        done = subprocess.run([copy / "scripts/up.sh", "-d"], env=other.environment, capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        said = "ModuleNotFoundError: " if file.startswith("stack") else ""
        assert done.stderr.startswith(f"up: the API does not start: {said}No module named 'app.nothing'"), done.stderr
        assert time.monotonic() - started < 55  # it doesn't wait for what can't come
    finally:
        other.script("down.sh", "--purge")


def test_down_stops_only_its_own(stack: Stack, other: Stack) -> None:
    workers = stack.wait_for_workers()
    done = other.script("down.sh", "--purge")
    assert done.returncode == 0, done.stderr
    assert "nothing is running" in done.stdout
    assert stack.workers() == workers
    assert stack.http.get("/health/ready").status_code == 200
