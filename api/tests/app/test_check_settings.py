"""Every setting of a stack is checked in one place, before anything starts: a line for each mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings.check import main
from app.settings.model import NAMES

API = Path(__file__).parents[2]


Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs the program with these settings; its exit status, and what it says."""

    def run(*arguments: object, **environment: str) -> tuple[int, list[str]]:
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", os.environ.copy())  # the program takes something out of it
            for name in NAMES & os.environ.keys():
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            status = main([str(argument) for argument in arguments])
        out, errors = capsys.readouterr()
        assert out == ""
        return status, errors.splitlines()

    return run


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("MAX_REQUESTS_IN_PROGRESS", value, "a whole number from 1 to 100000") for value in ("abc", "0", "1e3")),
        *(
            ("PROMETHEUS_RETENTION", value, "a duration up to 100y")
            for value in ("abc", "7", "0d", "1m1h", "-1d", "1.5d", "101y", "7 d", "\u0667d", "9" * 99 + "d")
        ),
        *(("SLUICE_PORT", value, "a port, 1 to 65535") for value in ("http", "0", "65536", "8000-8010")),
        *(("SLUICE_ADDRESS", value, "the IP address of an interface") for value in ("localhost", "1.2.3", "::g")),
        *(("API_CPUS", value, "a number from 0.01 to 1024") for value in ("two", "0", "-1", "1,5")),
        *(("MONGO_MEMORY", value, "a number with b, k, m, g or t") for value in ("lots", "1m", "2 g", "-2g")),
        ("DATABASE_NAME", "a.b", "1 to 63 characters"),
        ("SLUICE_MONGO_PORT", "65534", "1 to 65533, three ports are used"),
        ("WORKERS", "two", "a whole number from 1"),
    ],
)
def test_what_only_another_program_reads_is_checked_too(check: Check, name: str, value: str, allowed: str) -> None:
    status, (line,) = check("--containers", **{name: value})
    assert status == 1
    assert line.startswith(f"sluice: {name}={value!r}: allowed is {allowed}")


@pytest.mark.parametrize("production", [False, True])
def test_what_is_right_is_let_through(check: Check, tmp_path: Path, production: bool) -> None:
    (tmp_path / "key").write_text("k")
    given = {"PROMETHEUS_RETENTION": "1w3d12h", "SLUICE_ADDRESS": "[::1]", "API_CPUS": "0.5", "API_MEMORY": "1.5g"}
    given |= {"SLUICE_PORT": "8080", "CONNECTION_BUDGET": "207", "API_KEY_FILE": str(tmp_path / "key"), "WORKERS": ""}
    assert check("--production" if production else "--containers", **given) == (0, [])


def test_every_mistake_gets_a_line(check: Check) -> None:
    wrong = {"MAX_POOL_SIZE": "abc", "PROMETHEUS_RETENTION": "abc", "DATABASE_NAME": "a.b", "SLUICE_PORT": "x"}
    status, lines = check("--containers", **wrong)
    assert status == 1
    assert sorted(line.partition("=")[0] for line in lines) == sorted(f"sluice: {name}" for name in wrong)


def test_a_file_that_cannot_be_read_hides_no_other_mistake(check: Check, tmp_path: Path) -> None:
    first, second, third = (tmp_path / str(number) for number in range(3))
    first.write_text("API_KEY='k\n")
    second.write_bytes(b"A=\xff\n")
    third.write_text("MAX_POOL_SIZE=abc\n")
    files = [text for file in (first, second, third) for text in ("--env-file", file)]
    status, lines = check("--production", *files, WORKERS="two")
    assert status == 1
    assert [line.removeprefix("sluice: ").partition(": ")[0] for line in sorted(lines)] == [
        f"{first} line 1", f"{second} line 1", "MAX_POOL_SIZE='abc'", "WORKERS='two'",
    ]  # fmt: skip
    third.write_text("")  # whether there is a key isn't known
    assert len(check("--production", *files)[1]) == 2


def test_the_budget_is_checked_with_the_stacks_defaults(check: Check) -> None:
    status, (line,) = check(CONNECTION_BUDGET="206")
    assert status == 1
    assert "1 containers × (2 workers × (100 pool + 2 monitors) + 3 observer) = 207" in line
    status, (line,) = check(CONNECTION_BUDGET="400", API_CONTAINERS="2")
    assert "2 containers × " in line


def test_a_folder_without_which_no_worker_starts(check: Check) -> None:
    line = "sluice: WORKER_TMP_DIR='/nowhere': allowed is a folder that this user may write to"
    assert check(WORKER_TMP_DIR="/nowhere") == (1, [line])
    assert check("--containers", WORKER_TMP_DIR="/nowhere") == (0, [])  # where it isn't used


def test_settings_that_do_not_go_together(check: Check) -> None:
    assert check("--containers", SLUICE_PORT="9090") == (
        1,
        ["sluice: SLUICE_PROMETHEUS_PORT=9090: allowed is a port of its own, SLUICE_PORT has this one"],
    )
    assert check("--production", SLUICE_HTTP_PORT="443", API_KEY="k") == (
        1,
        ["sluice: SLUICE_HTTP_PORT=443: allowed is a port of its own, SLUICE_HTTPS_PORT has this one"],
    )
    assert check("--containers", SLUICE_ADDRESS="192.0.2.1") == (
        1,
        ["sluice: SLUICE_ADDRESS='192.0.2.1': allowed is loopback, or an API_KEY or API_KEY_FILE with it"],
    )
    assert check("--containers", SLUICE_ADDRESS="192.0.2.1", API_KEY="k") == (0, [])
    assert check("--production") == (
        1,
        ["sluice: API_KEY_FILE is not set: allowed is a file with the API key that writing needs"],
    )


@pytest.mark.parametrize("name", ["MONGODB_URL", "MONGODB_URL_FILE", "MONITORING_URL", "MONITORING_URL_FILE"])
def test_the_address_of_another_mongodb(check: Check, tmp_path: Path, name: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"{name}=mongodb://u:geheim@h/\n")
    another = "this stack runs a MongoDB of its own; for another, run the service alone, in api/: gunicorn main:app"
    assert check("--env-file", file) == (1, [f"sluice: {file}: {name} is not for this: {another}"])
    file.write_text(f"{name}=\n")
    assert check("--env-file", file) == (0, [])
    assert check(**{name.lower(): "x"}) == (0, [f"sluice: {name.lower()} in the environment is not used: {another}"])
    # Also one that leads nowhere is no reason not to start: a platform may have put it there.
    assert check(**{name: "/nowhere"}) == (0, [f"sluice: {name} in the environment is not used: {another}"])


def test_the_file_is_read_and_its_mistakes_are_told_with_the_others(check: Check, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("MAX_POOL_SIZE=abc\nSLUICE_HOME=/x\nPROMETHEUS_RETENTION=7d\n")
    status, lines = check("--containers", "--env-file", file, PROMETHEUS_RETENTION="abc")
    assert status == 1
    assert lines[0] == f"sluice: {file}: SLUICE_HOME: allowed is it in the environment only"
    assert [line.partition("=")[0] for line in lines[1:]] == ["sluice: MAX_POOL_SIZE", "sluice: PROMETHEUS_RETENTION"]


def test_what_is_odd_but_harmless_is_said(check: Check, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("BIND=0.0.0.0:80\nPOSTGRES_URL=x\n")
    assert check("--env-file", file, MAX_POOLSIZE="5", POSTGRES_URL="x") == (
        0,
        [
            f"sluice: {file}: BIND is not used: the stack makes its own",
            "sluice: MAX_POOLSIZE in the environment is no setting: MAX_POOL_SIZE is meant?",
        ],
    )


def test_it_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "app.settings.check", "--containers"]
    environment = {"PATH": os.environ["PATH"], "DATABASE_NAME": "a.b"}
    ran = subprocess.run(command, cwd=API, env=environment, capture_output=True, text=True, timeout=30)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1)
    assert ran.stderr.startswith("sluice: DATABASE_NAME='a.b': allowed is ")


@pytest.mark.parametrize(
    ("name", "mode"), [("nginx/nginx.conf", 0o600), ("nginx/run.sh", 0o744), ("prometheus", 0o700)]
)
def test_files_that_containers_could_not_read_are_named(check: Check, tmp_path: Path, name: str, mode: int) -> None:
    for folder in ("nginx", "prometheus", "grafana", "mongo"):
        (tmp_path / folder).mkdir(mode=0o755)
    (tmp_path / "nginx/nginx.conf").touch(0o644)
    (tmp_path / "nginx/run.sh").touch(0o755)
    (tmp_path / "nginx/run.sh").chmod(0o755)
    assert check("--containers", "--env-file", tmp_path / ".env") == (0, [])
    (tmp_path / name).chmod(mode)
    status, (line,) = check("--containers", "--env-file", tmp_path / ".env")
    assert status == 1
    assert f"{tmp_path / name}: allowed is what others may read" in line
    assert "chmod -R go+rX" in line
