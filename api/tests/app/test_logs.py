"""Logs: whole lines from many processes, the three greps, and no secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from app.http import context
from app.observe import logs
from app.observe.log_sink import FileSink, StreamSink
from app.settings.model import Settings

API = Path(__file__).parents[2]
Make = Callable[..., Settings]

WRITER = """
import logging, sys
from pathlib import Path
from app.observe import logs
from app.settings.model import load
file = Path(sys.argv[1]) if sys.argv[1] != "-" else None
logs.set_up(load(_env_file=None, log_file=file, stats_dir=Path(sys.argv[2])))
for number in range(60):
    logging.getLogger("writer").info("begin %s %s end", number, sys.argv[3] * 9000)
"""
LINE = re.compile(r"^\S+ \S+ \| INFO \| worker=- request=- \| writer:<module>:\d+ - begin \d+ (.)\1{8999} end$")


def write_in_four_processes(file: str, stats: Path, stdout: int) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, file, str(stats), letter], cwd=API, stdout=stdout)
        for letter in "abcd"
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]


def test_processes_that_share_a_file_tear_no_line(tmp_path: Path) -> None:
    write_in_four_processes(str(tmp_path / "api.log"), tmp_path, subprocess.DEVNULL)
    lines = (tmp_path / "api.log").read_text().splitlines()
    assert len(lines) == 240
    assert all(map(LINE.match, lines))


def test_processes_that_share_a_pipe_tear_no_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) as cat:
        assert cat.stdin is not None
        write_in_four_processes("-", tmp_path, cat.stdin.fileno())
        cat.stdin.close()
    lines = out.read_text().splitlines()
    assert len(lines) == 240
    assert all(map(LINE.match, lines))


@pytest.fixture
def log_file(tmp_path: Path, settings: Make) -> Callable[..., Path]:
    def set_up(**given: object) -> Path:
        logs.set_up(settings(log_file=tmp_path / "api.log", **given))
        return tmp_path / "api.log"

    return set_up


@pytest.mark.parametrize("password", ["a-good-one-1", "o", "user", "connection", "ERROR"])
def test_the_three_greps_work_as_typed(log_file: Callable[..., Path], password: str) -> None:
    log = log_file(mongodb_url=f"mongodb://app:{password}@h/", api_key=password)
    logging.getLogger("sluice.client").info("connection pool ready")
    slow = logging.getLogger("sluice.statistics.operations")
    slow.warning("Execution time of %s for %s (seconds): %.3f", "users.find_one", "GET /users/{id}", 1.234)
    slow.warning("Execution time of %s for %s (seconds): %.3f", "users.find", "GET /users", 0.5)
    logging.getLogger("app").error("lost")

    def typed(command: str) -> list[str]:
        ran = subprocess.run(["bash", "-c", command], cwd=log.parent, capture_output=True, text=True)
        return ran.stdout.splitlines()

    assert [line.rpartition(" - ")[2] for line in typed('grep "connection pool" api.log')] == ["connection pool ready"]
    over = typed("""grep "Execution time" api.log | awk '$NF > 1.0'""")
    assert len(over) == 1
    assert over[0].endswith("Execution time of users.find_one for GET /users/{id} (seconds): 1.234")
    assert len(typed('grep "ERROR" api.log')) == 1
    assert "***" not in log.read_text()


def test_what_a_driver_may_say_of_a_short_password(log_file: Callable[..., Path]) -> None:
    log = log_file(mongodb_url="mongodb://app:o@h/")
    try:
        raise RuntimeError("no way to mongodb://app:o@h/ with password='o'")
    except RuntimeError:
        logging.getLogger("pymongo").exception("connection pool not ready: %s", "mongodb://app:o@h/")
    text = log.read_text()
    assert "connection pool not ready: mongodb://***@h/\n" in text
    assert "RuntimeError: no way to mongodb://***@h/ with password='***'" in text


def test_an_error_brings_its_traceback_and_no_values(log_file: Callable[..., Path]) -> None:
    log = log_file()
    local = "geheim"
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("app").exception("failed")
    text = log.read_text()
    assert "Traceback (most recent call last):" in text
    assert "RuntimeError: broken" in text
    assert f"'{local}'" not in text


def test_secrets_are_hidden_wherever_they_come_from(log_file: Callable[..., Path]) -> None:
    log = log_file(mongodb_url="mongodb://app:geheim%40x@h/", api_key="schluessel")
    logging.getLogger("pymongo").error("no way to mongodb://app:geheim%40x@h/ with geheim@x and schluessel")
    assert "geheim" not in log.read_text()
    assert "schluessel" not in log.read_text()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_secret_is_hidden_in_each_of_its_forms(log_file: Callable[..., Path], log_format: str) -> None:
    hidden = 'xyzzy"\\plugh\u00e9\n'
    log = log_file(mongodb_url=f"mongodb://app:{quote_plus(hidden)}@h/", log_format=log_format)
    try:
        raise ValueError(hidden)
    except ValueError:
        logging.getLogger("app").exception("%s, %r, %s and %s", hidden, hidden, json.dumps(hidden), quote_plus(hidden))
    text = log.read_text()
    assert text.count("***") == 5
    assert "xyzzy" not in text
    assert "plugh" not in text


def test_json_is_one_object_per_line(log_file: Callable[..., Path]) -> None:
    log = log_file(log_format="json")
    token = context.request_id.set("r-1")
    try:
        logging.getLogger("app").error("two\nlines", exc_info=ValueError("odd"))
    finally:
        context.request_id.reset(token)
    (line,) = log.read_text().splitlines()
    record = json.loads(line)
    assert (record["level"], record["request"], record["message"]) == ("ERROR", "r-1", "two\nlines")
    assert "ValueError: odd" in record["exception"]


def test_a_message_can_not_forge_a_line(log_file: Callable[..., Path]) -> None:
    log = log_file()
    logging.getLogger("app").info("GET /x\n2026-01-01 00:00:00.000 | ERROR | forged")
    logging.getLogger("app").info("GET /\x1b[2J\x85\u2028\x0b2026-01-01 00:00:00.000 | ERROR | forged\tétage")
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert r"GET /\x1b[2J\x85\u2028\x0b2026" in lines[1]
    assert lines[1].endswith("forged\tétage")


FORGED = "2026-01-01 00:00:00.000 | ERROR | worker=0 request=- | app:forge:1 - forged"


def test_an_exceptions_text_can_not_forge_a_line(log_file: Callable[..., Path]) -> None:
    log = log_file()
    try:
        raise ValueError(f"odd\n{FORGED}\r{FORGED}\u2028{FORGED}\n\n{FORGED}")
    except ValueError:
        logging.getLogger("app").exception("failed")
    first, *continued = log.read_text().splitlines()
    assert first.endswith(" - failed")
    assert continued[0] == "  Traceback (most recent call last):"
    assert len(continued) >= 5
    assert all(line.startswith("  ") for line in continued)
    assert sum(line.startswith(f"  {FORGED}") for line in continued) == 2


def test_a_file_that_can_not_be_opened_anew_costs_no_other_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    sink = FileSink(path)
    path.rename(tmp_path / "api.log.1")
    path.mkdir()
    others = []
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            sink.write(b"lost\n")
        others.append(os.open(os.devnull, os.O_RDONLY))  # would get the number of one that was closed by mistake
    path.rmdir()
    sink.write(b"found\n")
    assert path.read_bytes() == b"found\n"
    for other in others:
        os.close(other)  # raises for one that is closed already


def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "api.log"
    sink = FileSink(path)
    sink.write(b"one\n")
    path.rename(tmp_path / "api.log.1")
    sink.write(b"two\n")
    assert path.read_bytes() == b"two\n"
    assert os.path.getsize(tmp_path / "api.log.1") == 4


def test_without_a_place_for_its_lock_a_line_is_written_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # as little of a folder as a full or read-only one
    reading, writing = os.pipe()
    try:
        StreamSink(writing, tmp_path / "file" / "log.lock").write(b"a line\n")
        assert os.read(reading, 100) == b"a line\n"
    finally:
        os.close(reading)
        os.close(writing)
