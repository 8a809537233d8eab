"""Settings: starting points, secrets, and one clear line for each wrong value."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pymongo.common import URI_OPTIONS_VALIDATOR_MAP

from app.settings import startup
from app.settings.errors import SettingsError
from app.settings.model import Settings, load
from app.settings.mongodb_url import VARIABLES, masked, options_of, secrets_of
from sluice.options import GOVERNED

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


@pytest.mark.parametrize(("most", "least"), [("5", 5), ("40", 10), ("1", 1)])
def test_a_smaller_pool_has_a_smaller_minimum(monkeypatch: pytest.MonkeyPatch, most: str, least: int) -> None:
    monkeypatch.setenv("MAX_POOL_SIZE", most)
    assert load(_env_file=None).min_pool_size == least


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mongodb://h/shop", "shop"),
        ("mongodb://u:p%2Fw@h1,h2:27018/shop?replicaSet=rs0", "shop"),
        ("mongodb+srv://h.example.org/my%2Dshop", "my-shop"),
        ("mongodb://u:p@h/admin", "sluice"),
        ("mongodb://u:p@h/?authSource=shop", "sluice"),
        ("mongodb://h", "sluice"),
    ],
)
def test_the_database_is_the_one_that_the_connection_string_names(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    monkeypatch.setenv("MONGODB_URL", url)
    assert load(_env_file=None).database_name == name
    monkeypatch.setenv("DATABASE_NAME", "given")
    assert load(_env_file=None).database_name == "given"


def test_a_database_s_name_in_the_connection_string_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a.b" in refused(MONGODB_URL="mongodb://h/a.b")


@pytest.mark.parametrize("url", ["mongodb://u:ge/he.im", "mongodb://u:ge/he.im?x@h/db", "mongodb://u:1/he.im?x@h/db"])
def test_the_end_of_a_password_is_no_database_s_name(url: str) -> None:
    assert "he.im" not in refused(MONGODB_URL=url)


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
        *(
            ("CORS_ORIGINS", origin, "* alone, or origins as browsers send them")
            for origin in (
                "https://app.example.org/",
                "app.example.org",
                "https://App.example.org",
                "https://app.example.org:443",
                "http://app.example.org:80",
                "https://app.example.org:70000",
                "https://user@app.example.org",
                "https://*.example.org",
                "https://m\u00fcnchen.example",
                "null",
                "*,https://app.example.org",
                "https://app.example.org https://b.example.org",
                'https://a";',
            )
        ),
        *(
            ("TRUSTED_PROXIES", proxy, "addresses and networks")
            for proxy in ("traefik", "10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/0", "10.0.0.1;", "fe80::1%eth0")
        ),
        ("DATABASE_NAME", "a b", r'1 to 63 characters, none of / \ . " $ * < > : | ? and space'),
        *(
            ("DATABASE_NAME", name, "admin, config and local are MongoDB's own")
            for name in ("admin", "config", "local")
        ),
        ("CONNECTION_BUDGET", "-5", "a whole number from 1 to"),
        ("API_KEY_FILE", "/does/not/exist", "a readable file"),
        *(
            ("BIND", value, "host:port with a port up to 65535")
            for value in ("h:x", "1.2.3.4:65536", "::", "a:1,", "a b:1")
        ),
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
    ("variable", "value", "shown"),
    [
        ("MONGODB_URL_FILE", "mongodb://u:geheim@h/db", "mongodb://***@h/db"),
        ("MONITORING_URL_FILE", "mongodb+srv://u:geheim@h/db", "mongodb+srv://***@h/db"),
        ("DATABASE_NAME", "mongodb://u:geheim@h/db", "mongodb://***@h/db"),
        ("BIND", "mongodb://u:geheim@h/db", "mongodb://***@h/db"),
        ("API_KEY_FILE", "geheim", "***"),
    ],
)
def test_a_secret_in_another_setting_is_not_shown_either(variable: str, value: str, shown: str) -> None:
    message = refused(**{variable: value})
    assert message.startswith(f"{variable}={shown!r}: allowed is ")
    assert "geheim" not in message


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
        *((f"mongodb://u:ge{mark}geheim@h/db", "allowed is mongodb://") for mark in "?/@:% \t\n"),
        ("mongodb://u:x/ge.geheim?x@h/db", "allowed is mongodb://"),
        ("mongodb://h/?pwd=geheim", "option pwd is unknown"),
        ("mongodb://h/?user=u&token=geheim", "option user is unknown"),
        ('"mongodb://u:geheim@h/db"', "allowed is mongodb://"),
        ("mongodb://u:x?geheim", "allowed is mongodb://"),
        ("mongodb://u:x?w=1&geheim@h/?w=1", "allowed is mongodb://"),
        ("mongodb://u:geheim@h/?appName=a@b&bogus=1", "allowed is mongodb://"),
        *((url, "allowed is mongodb://") for url in ("geheim", "u:geheim", "u:geheim@h", "http://u:geheim@h/")),
        (
            "mongodb://u:geheim@h/?w=0",
            "option w=0 would answer before a write is done, or failed: allowed is 1",
        ),
        ("mongodb://u:geheim@h/?W=00", "option W=00 would answer before"),
        ("mongodb://u:geheim@h/?w=0&journal=true", "option w=0 would answer before"),
        ("mongodb://u:geheim@h/?w=", "option w= would answer before"),
        ("mongodb://h/?w=1&fsync=true&journal=true", "options that don't go together: Can't set both j and fsync"),
        ("mongodb://h/?maxStalenessSeconds=120", "options that don't go together: Read preference primary cannot"),
        ("mongodb://h/?authMechanism=SCRAM-SHA-256", "options that don't go together: SCRAM-SHA-256 requires a user"),
        ("mongodb://h/?readConcernLevel=most", "readConcernLevel=most is no read concern: allowed is local, avail"),
        ("mongodb://h/?readConcernLevel=linearizable", "option readConcernLevel=linearizable holds for reads of one"),
        ("mongodb://h/?tz_aware=false", "option tz_aware=false would take its zone from each time: allowed is true"),
        ("mongodb://h/?datetime_conversion=DATETIME_MS", "would make numbers of times: allowed is DATETIME"),
        ("mongodb://h/?datetime_conversion=odd", "option datetime_conversion has a value that is not allowed"),
        ("mongodb://h/?unicode_decode_error_handler=ignore", "would change texts that are read: allowed is strict"),
        ("mongodb://h/?loadBalanced=true", "option loadBalanced=true hides the members"),
        ("mongodb://h/?compressors=snappy", "option compressors has a value that is not allowed"),
        ("mongodb://h/?server_api=1", "option server_api has a value that is not allowed"),
    ],
)
def test_a_wrong_url_is_refused_without_its_secrets(url: str, complaint: str) -> None:
    message = refused(MONGODB_URL=url)
    assert message.startswith("MONGODB_URL=")
    assert complaint in message
    assert url == "mongodb://h/?datetime_conversion=odd" or "geheim" not in message.replace("snappy,geheim", "")
    assert "he/im" not in message
    assert refused(MONITORING_URL=url) == message.replace("MONGODB_URL", "MONITORING_URL", 1)


HONOURED = {
    "appname": "shop", "authsource": "admin", "compressors": "zlib", "connect": "false", "directconnection": "true",
    "enableoverloadretargeting": "true", "fsync": "true", "journal": "true", "localthresholdms": "20",
    "maxadaptiveretries": "3", "maxconnecting": "4", "maxstalenessseconds": "120", "readconcernlevel": "majority",
    "readpreference": "secondaryPreferred", "readpreferencetags": "dc:ny", "replicaset": "rs0", "retryreads": "false",
    "retrywrites": "false", "servermonitoringmode": "poll", "tls": "true", "tz_aware": "true",
    "tlsallowinvalidcertificates": "true", "tlsallowinvalidhostnames": "true", "tlsinsecure": "true",
    "tlsdisableocspendpointcheck": "true", "uuidrepresentation": "javaLegacy", "w": "majority", "wtimeoutms": "900",
    "zlibcompressionlevel": "5", "datetime_conversion": "DATETIME", "unicode_decode_error_handler": "strict",
    "loadbalanced": "false",
}  # fmt: skip
NEEDS = {"maxstalenessseconds": "readPreference=nearest&", "readpreferencetags": "readPreference=nearest&"}
NEEDS |= {name: "tls=true&" for name in HONOURED if name.startswith("tls") and name != "tls"}
ELSEWHERE = {"authmechanism", "authmechanismproperties", "srvallowedhostssuffix", "srvmaxhosts", "srvservicename"}
"""Honoured where they belong, with users and `mongodb+srv`."""
FILES = {"tlscafile", "tlscertificatekeyfile", "tlscertificatekeyfilepassword", "tlscrlfile"}
OBJECTS = {"driver", "server_api"}


def test_every_option_of_the_driver_is_honoured_or_refused_by_name() -> None:
    known = URI_OPTIONS_VALIDATOR_MAP.keys()
    assert known - {"ssl"} == HONOURED.keys() | VARIABLES.keys() | ELSEWHERE | FILES | OBJECTS
    assert VARIABLES.keys() == GOVERNED.keys() | {"timeoutms"}
    for name, value in HONOURED.items():
        assert name in options_of(f"mongodb://h/?{NEEDS.get(name, '')}{name}={value}"), name
    assert options_of("mongodb://h/?ssl=true") == {"tls": True}
    for name in VARIABLES.keys() | OBJECTS:
        with pytest.raises(ValueError, match=f"option {name} "):
            options_of(f"mongodb://h/?{name}=1")


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
        ("mongodb://app:ge?he/im@h/db?w=1", "mongodb://***@h/db?w=1"),
        ("mongodb://h/?tlsCertificateKeyFilePassword=geheim;w=1", "mongodb://h/?tlsCertificateKeyFilePassword=***;w=1"),
        ("localhost:27017", "localhost:27017"),
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


def test_what_is_on_the_disk_is_checked(settings: Make, tmp_path: Path) -> None:
    settings(log_file=tmp_path / "new" / "api.log", worker_tmp_dir=tmp_path).check_start()
    for folder in ("/nowhere", "/proc/version"):
        with pytest.raises(SettingsError, match=f"WORKER_TMP_DIR='{folder}': allowed is a folder that this user may"):
            settings(worker_tmp_dir=folder).check_start()
    with pytest.raises(SettingsError, match=r"LOG_FILE='/proc': allowed is a file that can be written to \(Is a dir"):
        settings(log_file="/proc").check_start()


def test_the_folder_for_statistics_must_be_ours(settings: Make) -> None:
    with pytest.raises(SettingsError, match="STATS_DIR='/proc/sluice'"):
        settings(stats_dir="/proc/sluice").check_start()


@pytest.mark.parametrize(
    "value", ["127.0.0.1:8000", "[::1]:80", ":0", "localhost", "unix:/run/api.sock", "fd://3", "a:1,b:2"]
)
def test_what_gunicorn_listens_on(settings: Make, value: str) -> None:
    assert settings(bind=value).bind == value


def test_a_name_in_the_environment_that_is_almost_a_settings_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(startup, "_warned", False)
    monkeypatch.setenv("MAX_POOLSIZE", "geheim")
    monkeypatch.setenv("POSTGRES_URL", "geheim")
    startup.warn()
    startup.warn()  # in each worker
    assert [record.getMessage() for record in caplog.records if "POOL" in record.getMessage()] == [
        "MAX_POOLSIZE in the environment is no setting: MAX_POOL_SIZE is meant?"
    ]


SERVERS = {
    "uvicorn": ["uvicorn", "main:app", "--port", "0"],
    "gunicorn": ["gunicorn", "main:app", "--bind", "127.0.0.1:0"],
}


@pytest.mark.parametrize(("server", "preload"), [("uvicorn", "false"), ("gunicorn", "false"), ("gunicorn", "true")])
@pytest.mark.parametrize(
    "wrong",
    [("MAX_POOL_SIZE", "abc"), ("CONNECTION_BUDGET", "50"), ("LOG_FILE", "/proc/nope/x.log"), ("LOG_FILE", "/proc")],
)
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


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert (load(_env_file=None).cors_origins, load(_env_file=None).trusted_proxies) == ((), ())
    monkeypatch.setenv("CORS_ORIGINS", " https://a.example,http://[::1]:5173, capacitor://localhost,,https://a.example")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1,2001:db8::/32")
    assert load(_env_file=None).cors_origins == ("https://a.example", "http://[::1]:5173", "capacitor://localhost")
    assert [str(each) for each in load(_env_file=None).trusted_proxies] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    monkeypatch.delenv("CORS_ORIGINS")
    (tmp_path / ".env").write_text("CORS_ORIGINS=*\n")
    assert load(_env_file=tmp_path / ".env").cors_origins == ("*",)


def test_without_knowing_its_processors_a_system_has_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.delenv("WORKERS", raising=False)
    assert load(_env_file=None).workers == os.cpu_count()
