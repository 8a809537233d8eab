"""`.env` is understood whole, or refused with the line's number and without a value."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import model as settings
from app.settings.env_file import read
from app.settings.errors import SettingsError
from app.settings.model import NAMES

API = Path(__file__).parents[2]


def of(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / ".env"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("MAX_POOL_SIZE=20", "20"),
        ("export MAX_POOL_SIZE=20\r\n", "20"),
        ("\ufeffMAX_POOL_SIZE=20\n", "20"),
        ("# a comment\n\n  MAX_POOL_SIZE = '20'   # and another\n", "20"),
        ('MAX_POOL_SIZE="20"\nPOSTGRES_URL=postgres://u:p@h/db\nNODE_ENV=production\nCOMPOSE_PROJECT_NAME=x\n', "20"),
        ("MAX_POOL_SIZE=20\nMAX_POOL_SIZE=20\n", "20"),
        ("SIZE=2\nMAX_POOL_SIZE=${SIZE}0\n", "20"),
        ("MAX_POOL_SIZE=${NOWHERE_SET:-20}\n", "20"),
        ('CERTIFICATE="-----BEGIN\nMIIEvQ==\n-----END"\nMAX_POOL_SIZE=20\n', "20"),
    ],
)
def test_what_is_understood(tmp_path: Path, text: str, value: str) -> None:
    assert read(of(tmp_path, text), NAMES)["MAX_POOL_SIZE"] == value


def test_a_value_in_single_quotes_is_what_it_is_as_docker_compose_has_it(tmp_path: Path) -> None:
    assert read(of(tmp_path, "API_KEY='a${b}$c#d'\n"), NAMES) == {"API_KEY": "a${b}$c#d"}


def test_a_folder_of_this_name_or_none_sets_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, NAMES) == read(tmp_path / ".env", NAMES) == read(of(tmp_path, "") / ".env", NAMES) == {}


@pytest.mark.parametrize("text", ['OPTIONS="A=1 WORKERS=2"', "OPTIONS='x TIMEOUT=3'", "JAVA_OPTS=-DTIMEOUT=3 -DX"])
def test_other_peoples_values_may_name_settings(tmp_path: Path, text: str) -> None:
    assert read(of(tmp_path, text), NAMES)


@pytest.mark.parametrize(
    ("make", "why"),
    [(lambda path: path.symlink_to("/nowhere"), "No such file or directory"), (os.mkfifo, "it is a pipe")],
    ids=["link to nothing", "pipe"],
)
def test_what_should_be_a_file_and_is_none_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    make(path := tmp_path / ".env")
    with pytest.raises(SettingsError, match=f"^{path} can't be read \\({why}\\): allowed is a readable file$"):
        read(path, NAMES)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('A=1\n\n\nAPI_KEY="geheim\n', 4, "API_KEY: the quotation marks don't end"),
        ("API_KEY='geheim\nLOG_FORMAT=json\n", 1, "API_KEY: the quotation marks don't end"),
        ('API_KEY="geheim\nLOG_FORMAT="json"\n', 1, "API_KEY: the quotation marks don't end"),
        ('API_KEY="geheim\nLOG_FORMAT="\n', 1, "API_KEY: the quotation marks that begin here also take in LOG_FORMAT"),
        ('OTHER="x\nAPI_KEY=geheim\nMORE="\n', 1, "OTHER: the quotation marks that begin here also take in API_KEY"),
        ('API_KEY="geheim"geheim\n', 1, "API_KEY: the quotation marks don't end"),
        ('API_KEY="ge\nheim"\n', 1, "API_KEY: the value goes on over several lines"),
        ("A=1\nMAX_POOL_SIZE: 20\n", 2, "MAX_POOL_SIZE: allowed is NAME=value"),
        ("MAX_POOL_SIZE:20\n", 1, "MAX_POOL_SIZE: allowed is NAME=value"),
        ("API_KEY geheim\n", 1, "API_KEY: allowed is NAME=value"),
        ("API_KEY\n", 1, "API_KEY: allowed is NAME=value"),
        ("export API_KEY\n", 1, "API_KEY: allowed is NAME=value"),
        ("geheim\n", 1, "allowed is NAME=value"),
        ("=geheim\n", 1, "allowed is NAME=value"),
        ('"API_KEY"=geheim\n', 1, "what is before = is no name"),
        ("\u200bAPI_KEY=geheim\n", 1, "what is before = is no name"),
        ("\u0410PI_KEY=geheim\n", 1, "what is before = is no name"),
        ("A=1\nAPI_KEY=geheim\0\n", 2, "there are bytes of value zero"),
        ("API_KEY=geheim\n".encode("utf-16"), 1, "there are bytes of value zero, as in UTF-16"),
        ("API_KEY=geheim\n".encode("utf-16-be"), 1, "there are bytes of value zero"),
        (b"A=1\nAPI_KEY=\xe9geheim\n", 2, "this is no UTF-8: allowed is text in UTF-8"),
        ("A=1\rAPI_KEY=geheim\r", 1, "allowed are line ends"),
        ("API_KEY= # geheim\n", 1, "API_KEY: Docker Compose takes the comment for the value"),
        ("API_KEY=ge$heim\n", 1, "API_KEY: Docker Compose takes a $ for"),
        ('API_KEY="ge$$heim"\n', 1, "API_KEY: Docker Compose takes a $ for"),
        ("API_KEY=geheim${NOWHERE_SET}\n", 1, "API_KEY: ${NOWHERE_SET} isn't set"),
        ("A=1 API_KEY=geheim\n", 1, "A: API_KEY is in the same line"),
        ("WORKERS=2\texport API_KEY=geheim\n", 1, "WORKERS: API_KEY is in the same line"),
        ("API_KEY=geheim\nA=1\nAPI_KEY=geheimer\n", 3, "API_KEY is set in line 1 already, otherwise"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, why: str
) -> None:
    path = of(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        read(path, NAMES)
    assert str(refused.value).startswith(f"{path} line {line}: {why}")
    assert "geheim" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        *(("MAX_POOLSIZE", "MAX_POOL_SIZE"), ("MAXPOOLSIZE", "MAX_POOL_SIZE"), ("max-pool-size", "MAX_POOL_SIZE")),
        *(("max_pool_size", "MAX_POOL_SIZE"), ("MAX_POOL_SIZES", "MAX_POOL_SIZE"), ("MAX_PO0L_SIZE", "MAX_POOL_SIZE")),
        *(("MONGO_URL", "MONGODB_URL"), ("MONGODB_URI", "MONGODB_URL"), ("MONGO_URI", "MONGODB_URL")),
        *(("APIKEY", "API_KEY"), ("API_KYE", "API_KEY"), ("API_KEYFILE", "API_KEY_FILE"), ("WORKRES", "WORKERS")),
        *(("LOGLEVEL", "LOG_LEVEL"), ("REQUEST_TIMEOUT", "REQUEST_TIMEOUT_MS"), ("KEEPALIVE", "KEEP_ALIVE")),
        *(("SLUICE_PROT", "SLUICE_PORT"), ("PROMETHEUS_RETENTON", "PROMETHEUS_RETENTION"), ("API_CPU", "API_CPUS")),
        *(("MAX_POOL", "MAX_POOL_SIZE"), ("POOL_SIZE", "MAX_POOL_SIZE"), ("API_TOKEN", "API_KEY")),
        *(("TLS_DIR", None), ("SLUICE_NOTHING_LIKE_IT", ".env.example")),
    ],
)
def test_a_name_that_is_almost_a_settings_is_refused(tmp_path: Path, name: str, right: str | None) -> None:
    path = of(tmp_path, f"\n{name}=geheim\n")
    if right is None:
        assert read(path, NAMES) == {name: "geheim"}
        return
    with pytest.raises(SettingsError) as refused:
        read(path, NAMES)
    assert str(refused.value).startswith(f"{path} line 2: {name} is no setting: ")
    assert str(refused.value).endswith(f" {right}")


@pytest.mark.parametrize(
    "name",
    [
        *("POSTGRES_URL", "DATABASE_URL", "REDIS_URL", "APP_KEY", "MY_API_KEY", "OPENAI_API_KEY", "APP_NAME", "PORT"),
        *("NODE_ENV", "TZ", "COMPOSE_FILE", "COMPOSE_PROFILES", "DOCKER_HOST", "LOG_DIR", "HTTP_PROXY", "MONGO_USER"),
        *("DB_HOST", "AWS_REGION", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GF_SERVER_HTTP_PORT"),
    ],
)
def test_other_peoples_names_are_let_alone(tmp_path: Path, name: str) -> None:
    assert read(of(tmp_path, f"{name}=x\n"), NAMES) == {name: "x"}


def test_the_environment_wins_over_the_file_and_that_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = of(tmp_path, "MAX_POOL_SIZE=20\nWORKERS=3\nLOG_FILE=\n")
    monkeypatch.setenv("MAX_POOL_SIZE", "30")
    chosen = settings.read([path], {"max_pool_size": "1", "workers": "1", "keep_alive": "7"})
    assert (chosen.max_pool_size, chosen.workers, chosen.keep_alive, chosen.log_file) == (30, 3, 7, None)


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_a_broken_file_stops_the_start_in_one_line(tmp_path: Path, server: str) -> None:
    of(tmp_path, 'API_KEY="geheim\n')
    command = [sys.executable, "-m", server, "main:app", *(["--port", "0"] if server == "uvicorn" else [])]
    command += ["--app-dir", str(API)] if server == "uvicorn" else ["-c", str(API / "gunicorn.conf.py")]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(API)}, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode not in (0, 3, 4)
    assert ended.stderr.splitlines()[0].startswith("sluice: .env line 1: API_KEY: the quotation marks")
    assert len(ended.stderr.splitlines()) == 1
    assert "geheim" not in ended.stderr + ended.stdout
