"""Whatever is read, from callers, operators or files: understood or refused in the documented way, and read back as it
was written where it is written, too."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import re
import string
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import bson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send
from supervisor.datatypes import dict_of_key_value_pairs

from app.data import collections
from app.dependencies import IdempotencyKey
from app.http import context, etags, idempotency_key, media_type, middleware
from app.http.problems import Problem
from app.observe.masks import Masks
from app.settings import env_file, lists, mongodb_url, names
from app.settings.errors import SettingsError
from app.settings.model import NAMES, Settings, load
from app.settings.stack import StackSettings
from app.users.listing import Listing, Sort
from app.users.model import NewUser, UserBulk, UserChange
from mongo import backup_format
from mongo.backup_format import BackupError
from scripts.log_report import errors, pool, slow, table
from scripts.log_report.records import Record, Tally, read
from scripts.log_report.source import SourceError, open_log
from sluice.drivers.arguments import without_secrets
from sluice.options import Options, url_options
from sluice.statistics.encoding import decode
from sluice.statistics.snapshot import WorkerSnapshot
from stack.home import StackError
from stack.supervisord_conf import _environment

BLANKS = st.text(" \t", max_size=3)
LONG_NUMBER = "9" * 5_000
"""Python refuses to make a number of so many digits."""


def words(*parts: str) -> st.SearchStrategy[str]:
    """Texts of these and of anything between them."""
    return st.lists(st.sampled_from(parts) | st.text(max_size=5), max_size=12).map("".join)


def octets(*parts: str) -> st.SearchStrategy[bytes]:
    return words(*parts).map(lambda text: text.encode("utf-8", "replace"))


# Headers


@given(words('"', 'W/"', ",", " ", "*", "1", LONG_NUMBER))
def test_conditions(condition: str) -> None:
    with suppress(Problem):
        assert all(version >= 0 for version in etags.versions(condition) or ())
        assert re.search(etags.CONDITION, condition)
    assert etags.unchanged(condition, '"1"') in (True, False)


@given(st.lists(st.tuples(st.integers(0, 10**18 - 1), st.booleans(), BLANKS, BLANKS), min_size=1))
def test_versions_are_read_as_they_are_written(tags: list[tuple[int, bool, str, str]]) -> None:
    written = ",".join(f'{before}{"W/" * weak}"{version}"{behind}' for version, weak, before, behind in tags)
    assert etags.versions(written) == [version for version, *_ in tags]
    assert all(etags.unchanged(written, f'"{version}"') for version, *_ in tags)
    assert re.search(etags.CONDITION, written)


@given(st.none() | octets("a", "-", "/", " ", "\r\n"))
def test_request_ids(given: bytes | None) -> None:
    ours = context.sane_id(given)
    assert re.fullmatch(rb"[!-~]{1,128}", ours)
    assert context.sane_id(ours) == ours


@given(octets("00", "-", "ff", "0" * 32, "1" * 32, "a" * 16, "01", "A"))
def test_traces(traceparent: bytes) -> None:
    followed = middleware.follow(traceparent)
    if followed is not None:
        again = middleware.follow(followed)
        assert again is not None
        assert again[:36] == followed[:36] == b"00-" + traceparent[3:36]
        assert again[-2:] == traceparent[53:55]


@given(
    st.binary(min_size=16, max_size=16).filter(any), st.binary(min_size=8, max_size=8).filter(any), st.integers(0, 255)
)
def test_a_trace_goes_on(trace: bytes, parent: bytes, flags: int) -> None:
    followed = middleware.follow(f"00-{trace.hex()}-{parent.hex()}-{flags:02x}".encode())
    assert followed is not None
    assert followed.decode().startswith(f"00-{trace.hex()}-")
    assert followed.decode().endswith(f"-{flags:02x}")


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([
            b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"x-request-timeout-ms",
            b"traceparent", b"x-request-id", b"cookie", b"idempotency-key", b"upgrade",
        ]),
        octets("application/json", "json", ";", "+", "identity", "chunked", "gzip", "1", "0", "-", LONG_NUMBER, " "),
    ),
    max_size=6,
)  # fmt: skip


@given(HEADERS, st.sampled_from(["GET", "POST", "BREW"]), st.binary(max_size=20))
@example([(b"content-length", LONG_NUMBER.encode())], "POST", b"")
@example([(b"x-request-timeout-ms", LONG_NUMBER.encode())], "GET", b"")
def test_what_every_request_passes(headers: list[tuple[bytes, bytes]], method: str, body: bytes) -> None:
    """Limits of the body and of time, the request's id, and what a body may be: right, or a `Problem`."""
    scope: Scope = {"type": "http", "method": method, "path": "/users", "headers": headers}

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def never(message: Message) -> NoReturn:
        raise AssertionError(message)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        idempotency_key.refuse(scope)
        media_type.require_json(Request(scope))
        await receive()

    limited = middleware.Deadline(middleware.BodyLimit(route, 10), 5)
    app = middleware.Context(limited, lambda scope, status, seconds: None)
    with suppress(Problem):
        asyncio.run(app(scope, receive, never))


@given(st.text())
def test_idempotency_keys(key: str) -> None:
    adapter: TypeAdapter[str | None] = TypeAdapter(IdempotencyKey)
    try:
        assert adapter.validate_python(key) == key
    except ValidationError:
        assert not re.fullmatch(r"[!-~]{1,255}", key)
    else:
        assert re.fullmatch(r"[!-~]{1,255}", key)


# Queries and bodies

NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
JSON: st.SearchStrategy[Any] = st.recursive(
    NUMBERS | st.text(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
FIELDS = ("email", "name", "age", "city", "tags", "users")


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON | st.lists(st.text()), max_size=5))
@pytest.mark.parametrize("model", [NewUser, UserChange, UserBulk])
def test_bodies(model: type[NewUser | UserChange | UserBulk], body: dict[str, Any]) -> None:
    with suppress(ValidationError):
        understood = model.model_validate(body)
        assert model.model_validate(understood.model_dump(exclude_unset=True)) == understood


@given(st.integers(0, 150))
def test_a_whole_number_is_an_integer_however_it_is_written(age: int) -> None:
    for written in (age, float(age), json.loads(f"{age}.0"), json.loads(f"{age}e0")):
        assert NewUser.model_validate({"email": "a@example.org", "name": "A", "age": written}).age == age


@given(st.floats().filter(lambda number: not number.is_integer() or not 0 <= number <= 150))
@example(math.inf)
def test_no_other_number_is_an_age(age: float) -> None:
    with pytest.raises(ValidationError):
        NewUser.model_validate({"email": "a@example.org", "name": "A", "age": age})


@given(
    st.dictionaries(
        st.sampled_from([*Listing.model_fields, "other"]),
        words("1", "-", "age", "created_at", "name", ".0", LONG_NUMBER, "@example.org"),
    )
)
def test_queries(query: dict[str, str]) -> None:
    with suppress(ValidationError, Problem):
        assert bson.encode(Listing.model_validate(query).query())


@given(
    st.sampled_from(["created_at", "-created_at", "name", "-name", "age", "-age"]),
    st.fixed_dictionaries(
        {
            "created_at": st.datetimes().map(
                lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
            ),
            "name": st.text(max_size=200).filter(lambda name: name.encode("utf-8", "replace").decode() == name),
            "age": st.none() | st.integers(0, 150),
            "_id": st.binary(min_size=12, max_size=12).map(bson.ObjectId),
        }
    ),
)
def test_a_cursor_continues_behind_its_document(sort: Sort, last: dict[str, Any]) -> None:
    listing = Listing(sort=sort)
    cursor = Listing(sort=sort, cursor=listing.next_cursor(last))
    value, key = cursor._decoded(cursor.cursor or "")
    expected = last[listing.field]
    assert (value.replace(tzinfo=None) if listing.field == "created_at" else value, key) == (expected, last["_id"])


# Settings

URLS = words(
    *(
        "mongodb://",
        "mongodb+srv://",
        "user",
        ":",
        "pass",
        "@",
        "host",
        ",",
        "/",
        "?",
        "&",
        ";",
        "=",
        "%",
        "[::1]",
        "w",
    ),
    *(
        "authSource",
        "readPreference",
        "authMechanismProperties",
        "AWS_SESSION_TOKEN:t",
        "tls",
        "true",
        "0",
        LONG_NUMBER,
    ),
)


@given(URLS)
def test_connection_strings(url: str) -> None:
    mongodb_url.masked(url)
    mongodb_url.secrets_of(url)
    mongodb_url.database_of(url)
    list(url_options(url))
    with suppress(ValueError):
        mongodb_url.options_of(url)
    with suppress(ValueError):
        Options(url=url, database="x")
    with suppress(ValueError), without_secrets(url):
        raise ValueError(f"what was '{url}'")


@given(st.text(string.ascii_letters + string.digits, min_size=8), st.sampled_from(["@host/", "@host:27017/?tls=true"]))
def test_no_password_is_shown(password: str, rest: str) -> None:
    password = f"-{password}-"
    url = f"mongodb://user:{password}{rest}"
    assert password in mongodb_url.secrets_of(url)
    assert password not in mongodb_url.masked(url)
    with pytest.raises(SettingsError) as refusal:
        load(_env_file=None, mongodb_url=f"{url}&w=0" if "?" in url else f"{url}?w=0")
    assert password not in str(refusal.value)


@given(st.text() | URLS, st.text(min_size=1, max_size=30))
def test_masks(text: str, secret: str) -> None:
    masks = Masks({secret})
    masks(text)
    if len(secret) >= 16:
        assert secret not in masks(f"{text} {secret} {text}")


VALUES = words(
    "*",
    "https://",
    "a.example",
    ":",
    "443",
    ",",
    "10.0.0.0/8",
    "::/0",
    "unix:",
    "fd://",
    "1",
    "m",
    "d",
    "y",
    ".",
    "٣",
    LONG_NUMBER,
)


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), VALUES, max_size=4))
@example({"max_pool_size": LONG_NUMBER})
@example({"bind": f"a:{LONG_NUMBER}"})
@example({"cors_origins": f"https://a:{LONG_NUMBER}"})
def test_settings(values: dict[str, str]) -> None:
    with suppress(SettingsError):
        understood = load(
            _env_file=None, **{name: value for name, value in values.items() if not name.endswith("_file")}
        )
        assert str(understood)
        understood.options()


@given(st.dictionaries(st.sampled_from(sorted(StackSettings.model_fields)), VALUES, max_size=4))
def test_settings_of_the_stack(values: dict[str, str]) -> None:
    with suppress(ValidationError):
        understood = StackSettings.model_validate(values)
        assert understood.opens_to_others in (True, False)


@given(VALUES)
def test_lists(text: str) -> None:
    for parse in (lists._origins, lists._networks):
        with suppress(ValueError):
            items: Iterable[object] = parse(text)
            assert parse(",".join(map(str, items))) == items


@given(st.text())
def test_names_that_were_meant(name: str) -> None:
    assert names.meant(name, NAMES) in {*NAMES, None}


@given(
    words("API_KEY", "MAX_POOL_SIZE", "X", "=", "'", '"', "\n", "\r\n", "#", "$", "${X}", "${X:-y}", "export ", "\\")
    .map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.binary()
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_env_files(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / ".env"
    file.write_bytes(raw)
    with suppress(SettingsError):
        assert all(isinstance(value, str) for value in env_file.read(file, NAMES).values())


PRINTABLE = st.characters(exclude_categories=["C"], exclude_characters="'\\\u2028\u2029")


@given(st.dictionaries(st.from_regex(r"X[A-Z_]{1,8}", fullmatch=True), st.text(PRINTABLE)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_env_file_is_read_as_it_is_written(tmp_path: Path, values: dict[str, str]) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    assert env_file.read(file, NAMES) == values


@given(st.text(min_size=1))
def test_the_environment_of_a_supervised_program(value: str) -> None:
    with suppress(StackError):
        assert dict_of_key_value_pairs(_environment({"A": value, "B": "b"})) == {"A": value, "B": "b"}


# Logs, and what is on the disk

MESSAGES = words(
    *("GET /users (", "/users) answered 500 in 1.000 s", "connection pool ", "closed: Error:", "127.0.0.1:27017", " "),
    *(
        "Execution time of find for GET /x (seconds): ",
        "0.5",
        LONG_NUMBER,
        " more of these lines in 10 s were left out: ",
    ),
    *("/problems/x", "ValueError: ", "ERROR", "²", "٣"),
)
ORIGINS = st.sampled_from(["app.observe.access_log", "sluice.statistics.operations", "app.main"])
LEVELS = st.sampled_from(["INFO", "ERROR"])
TEXT_LINES = st.builds(
    "2026-11-23 01:49:00.123 | {} | worker=1 request=- | {}:f:1 - {}".format, LEVELS, ORIGINS, MESSAGES
)
OBJECTS = st.fixed_dictionaries(
    {"time": st.just("2026-11-23T01:49:00.123") | NUMBERS, "level": LEVELS | NUMBERS, "message": MESSAGES | JSON},
    optional={name: st.text() | JSON for name in ("worker", "request", "module", "exception", "trace")},
)
LINES = (
    TEXT_LINES.map(lambda text: text.encode("utf-8", "replace"))
    | OBJECTS.map(lambda fields: json.dumps(fields).encode())
    | octets("  File", "Traceback (most recent call last):", "api-1  | ", "[pod/x] ", "\x1b[1m", "ERROR", '{"', "}")
    | st.binary()
)
NEEDLES = {pool: pool.NEEDLES, slow: slow.NEEDLES, errors: errors.NEEDLES}


@given(st.lists(LINES.map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=6))
@example([b'{"' + b"[" * 100_000 + b'ERROR"}\n'])
@example([b'{"time":"2026-11-23T01:49:00.123","level":"ERROR","worker":"1","request":"-","module":"m","message":5}\n'])
@example(
    [
        b"2026-11-23 01:49:00.123 | ERROR | worker=1 request=- | m:f:1 - "
        + LONG_NUMBER.encode()
        + b" more of these lines in 10 s were left out: x\n"
    ]
)
def test_lines_of_a_log(lines: list[bytes]) -> None:
    for module, needles in NEEDLES.items():
        tally = Tally()
        rows = module.report(read(lines, (*needles, b'"time"'), tally))
        assert tally.lines == len(lines)
        for line in table.lines(module.HEADER, rows, 80):
            assert line.isprintable()


@given(LEVELS, ORIGINS, st.text(PRINTABLE, max_size=80), st.booleans())
def test_a_record_is_read_as_it_is_logged(level: str, module: str, message: str, as_json: bool) -> None:
    record = Record("2026-11-23 01:49:00.123", level, "1", "-", module, message)
    line = f"{record.time} | {level} | worker=1 request=- | {module}:f:1 - {message}"
    if as_json:
        fields = {**record.__dict__, "time": "2026-11-23T01:49:00.123+00:00"}
        del fields["traceback"]
        line = json.dumps(fields)
    assert list(read([line.encode() + b"\n"], (b"",), Tally())) == [record]


@given(
    st.binary()
    | st.binary().map(gzip.compress)
    | st.tuples(st.binary(), st.integers(0, 40)).map(lambda cut: gzip.compress(cut[0])[: cut[1]])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_logs_that_are_packed(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "api.log"
    file.write_bytes(raw)
    with suppress(SourceError), open_log(str(file)) as log:
        list(log)


def backup(*records: dict[str, Any]) -> bytes:
    return gzip.compress(b"".join(map(bson.encode, records)))


@given(
    st.binary()
    | st.binary().map(gzip.compress)
    | st.lists(st.dictionaries(st.sampled_from(["sluice_backup", "document", "end"]), JSON, max_size=3)).map(
        lambda found: backup({"sluice_backup": 1}, *({k: str(v) for k, v in each.items()} for each in found))
    )
    | st.tuples(st.integers(0, 200), st.binary(max_size=9)).map(
        lambda cut: gzip.compress((bson.encode({"sluice_backup": 1}) + bson.encode({"end": 0}))[: cut[0]] + cut[1])
    )
)
def test_backups(raw: bytes) -> None:
    with suppress(BackupError):
        for record in backup_format.records(io.BytesIO(raw)):
            backup_format.plain(record)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(f'{{"pid": {LONG_NUMBER}}}'.encode())
def test_snapshots_of_another_version(raw: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(decode(raw), WorkerSnapshot)


@given(words("sluice.users v", "1", "٣", LONG_NUMBER, " v") | JSON)
def test_titles_of_schemas(title: object) -> None:
    assert collections._version(title) >= 0
    collections._name(title)
