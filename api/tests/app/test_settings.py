"""Settings: starting points, secrets, and one clear line for each wrong value."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.mongodb_url import masked, secrets_of
from app.setting_errors import SettingsError
from app.settings import Settings, load

API = Path(__file__).parents[2]
Make = Callable[..., Settings]


def refused(**environment: str) -> str:
    """What load says about these variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SettingsError) as error:
            load(_env_file=None)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("profile", "limits"), [("default", (100, 10)), ("high-traffic", (200, 20)), ("low-traffic", (50, 5))]
)
def test_a_pool_profile_sets_starting_points(settings: Make, profile: str, limits: tuple[int, int]) -> None:
    chosen = settings(pool_profile=profile)
    assert (chosen.max_pool_size, chosen.min_pool_size) == limits


@pytest.mark.parametrize(
    ("profile", "times"),
    [("default", (5000, 10000, 5000)), ("aggressive", (2000, 5000, 3000)), ("conservative", (10000, 30000, 10000))],
)
def test_a_timeout_profile_sets_starting_points(settings: Make, profile: str, times: tuple[int, int, int]) -> None:
    chosen = settings(timeout_profile=profile)
    assert (chosen.connect_timeout_ms, chosen.socket_timeout_ms, chosen.server_selection_timeout_ms) == times


def test_an_explicit_variable_wins_over_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_PROFILE", "high-traffic")
    monkeypatch.setenv("MIN_POOL_SIZE", "3")
    chosen = load(_env_file=None)
    assert (chosen.max_pool_size, chosen.min_pool_size) == (200, 3)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "")
    monkeypatch.setenv("MAX_POOL_SIZE", "")
    assert load(_env_file=None).api_key is None


def test_a_dotenv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAX_POOL_SIZE=70\nSLUICE_PORT=8000\n")
    assert load(_env_file=tmp_path / ".env").max_pool_size == 70


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("MAX_POOL_SIZE", "abc", "a whole number from 1 to"),
        ("MAX_POOL_SIZE", "0", "a whole number from 1 to"),
        ("MIN_POOL_SIZE", "101", "0 to MAX_POOL_SIZE, which is 100"),
        ("CONNECT_TIMEOUT_MS", "-1", "a whole number from 1 to"),
        ("REQUEST_TIMEOUT_MS", "1.5", "a whole number from 1 to"),
        ("HEARTBEAT_FREQUENCY_MS", "499", "a whole number from 500 to"),
        ("POOL_PROFILE", "huge", "default, high-traffic or low-traffic"),
        ("TIMEOUT_PROFILE", "relaxed", "default, aggressive or conservative"),
        ("MONGODB_DRIVER", "mongoose", "pymongo or motor"),
        ("LOG_FORMAT", "xml", "text or json"),
        ("PRELOAD", "maybe", "true or false"),
        ("DATABASE_NAME", "a b", r'1 to 63 characters, none of / \ . " $ * < > : | ? and space'),
        ("CONNECTION_BUDGET", "-5", "a whole number from 1 to"),
        ("API_KEY_FILE", "/does/not/exist", "a readable file"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    message = refused(**{variable: value})
    assert variable in message
    assert value in message
    assert f"allowed is {allowed}" in message or allowed in message


@pytest.mark.parametrize("key", ["schl\u00fcssel", "two words", "tab\tbed", "line\nbreak", "\u200bkey"])
def test_a_key_that_no_header_carries_unchanged_is_refused(tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(key)
    for given in ({"API_KEY": key}, {"API_KEY_FILE": str(tmp_path / "key")}):
        assert refused(**given) == "API_KEY='***': allowed are printable ASCII characters but for spaces"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:27017", "allowed is mongodb://"),
        ("mongodb://u:geheim@h:99999/", "allowed is mongodb://"),
        ("mongodb://u:ge@he/im@h/", "allowed is mongodb://"),
        ("mongodb://u:geheim", "allowed is mongodb://"),
        ("mongodb+srv://u:geheim@h.example.com:27017/", "allowed is mongodb://"),
        ("mongodb://u:geheim@h/?unknownOption=1", "option unknownOption is unknown"),
        ("mongodb://u:geheim@h/?waitQueueMultiple=3", "set WAIT_QUEUE_MULTIPLE instead"),
        ("mongodb://u:geheim@h/?maxpoolsize=3", "set MAX_POOL_SIZE instead"),
        ("mongodb://u:geheim@h/?timeoutMS=3", "set REQUEST_TIMEOUT_MS instead"),
        ("mongodb://u:geheim@h/?readPreference=best", "best is not a valid read preference"),
        ("mongodb://u:geheim@h/?w=1&w=2", "option w is given twice"),
        ("mongodb://h/?tlsCAFile=/nope&tlsCertificateKeyFilePassword=geheim", "option tlsCAFile has a value"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secrets(url: str, complaint: str) -> None:
    message = refused(MONGODB_URL=url)
    assert message.startswith("MONGODB_URL=")
    assert complaint in message
    assert "geheim" not in message
    assert "he/im" not in message


def test_srv_needs_no_look_up(settings: Make) -> None:
    assert settings(mongodb_url="mongodb+srv://u:p@no-such-name.invalid/?appName=shop").options().app_name == "shop"


def test_everything_wrong_is_said_in_one_line() -> None:
    message = refused(MAX_POOL_SIZE="abc", HEARTBEAT_FREQUENCY_MS="1")
    assert "MAX_POOL_SIZE='abc'" in message
    assert "HEARTBEAT_FREQUENCY_MS='1'" in message


def test_secrets_come_from_files(tmp_path: Path, settings: Make) -> None:
    secret = tmp_path / "key"
    secret.write_text("geheim\n")
    chosen = settings(api_key_file=secret)
    assert chosen.api_key is not None
    assert chosen.api_key.get_secret_value() == "geheim"


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    message = refused(API_KEY="geheim", API_KEY_FILE=str(tmp_path))
    assert "API_KEY and API_KEY_FILE are both set" in message
    assert "geheim" not in message


def test_the_environment_wins_over_dotenv_also_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MONGODB_URL=mongodb://dotenv\n")
    (tmp_path / "url").write_text("mongodb://file\n")
    monkeypatch.setenv("MONGODB_URL_FILE", str(tmp_path / "url"))
    assert load(_env_file=tmp_path / ".env").mongodb_url.get_secret_value() == "mongodb://file"


def test_secrets_are_in_no_representation(settings: Make) -> None:
    chosen = settings(mongodb_url="mongodb://app:geheim%40x@h/", api_key="schluessel")
    for text in (repr(chosen), str(chosen), str(chosen.model_dump()), repr(chosen.options()), f"{chosen}"):
        assert "geheim" not in text
        assert "schluessel" not in text
    assert chosen.secrets == {"geheim%40x", "geheim@x", "schluessel"}


def test_every_secret_of_a_url_is_known() -> None:
    query = "tlsCertificateKeyFilePassword=geh%21eim&authMechanismProperties="
    properties = "SERVICE_NAME:mongodb,AWS_SESSION_TOKEN:ab%2Fc%3D"
    assert secrets_of(f"mongodb://app:p%40ss@h/db?{query}{properties}&w=1") == {
        *("p%40ss", "p@ss"),
        *("geh%21eim", "geh!eim"),
        *("ab/c=", properties, "SERVICE_NAME:mongodb,AWS_SESSION_TOKEN:ab/c="),
    }
    assert secrets_of("mongodb://h/?authMechanismProperties=CANONICALIZE_HOST_NAME:true") == set()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mongodb://app:geheim@h1,h2/db", "mongodb://***@h1,h2/db"),
        ("mongodb://h1,h2:27018/db?replicaSet=rs0", "mongodb://h1,h2:27018/db?replicaSet=rs0"),
        ("mongodb://[::1]:27017/", "mongodb://[::1]:27017/"),
        ("mongodb://app:geheim", "mongodb://***"),
        ("mongodb:/app:geheim@h", "mongodb:/***@h"),
    ],
)
def test_a_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_milliseconds_become_seconds(settings: Make) -> None:
    options = settings(wait_queue_timeout_ms=250, max_idle_time_ms=0, slow_operation_ms=50).options()
    assert (options.wait_queue_timeout, options.max_idle_time, options.slow_operation) == (0.25, None, 0.05)


def test_the_budget_shows_its_arithmetic(settings: Make) -> None:
    within = settings(connection_budget=411, workers=4)
    within.check_start()
    with pytest.raises(SettingsError, match=r"1 containers × \(4 workers × \(100 pool \+ 2 monitors\) \+ 3 .*= 411"):
        settings(connection_budget=410, workers=4).check_start()


def test_the_folder_for_statistics_must_be_ours(settings: Make) -> None:
    with pytest.raises(SettingsError, match="STATS_DIR='/proc/sluice'"):
        settings(stats_dir="/proc/sluice").check_start()


SERVERS = {
    "uvicorn": ["uvicorn", "main:app", "--port", "0"],
    "gunicorn": ["gunicorn", "main:app", "--bind", "127.0.0.1:0"],
}


@pytest.mark.parametrize(("server", "preload"), [("uvicorn", "false"), ("gunicorn", "false"), ("gunicorn", "true")])
@pytest.mark.parametrize("wrong", [("MAX_POOL_SIZE", "abc"), ("CONNECTION_BUDGET", "50")])
def test_a_wrong_setting_stops_the_start_in_one_line(
    server: str, preload: str, wrong: tuple[str, str], tmp_path: Path
) -> None:
    name, value = wrong
    environment = {**os.environ, "PRELOAD": preload, "STATS_DIR": str(tmp_path), name: value}
    command = [sys.executable, "-m", *SERVERS[server]]
    ended = subprocess.run(command, cwd=API, env=environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode not in (0, 3, 4)
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"sluice: {name}=")


def test_without_knowing_its_processors_a_system_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.delenv("WORKERS", raising=False)
    assert load(_env_file=None).workers == os.cpu_count()
