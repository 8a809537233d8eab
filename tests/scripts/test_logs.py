"""logs.sh on lines that the service's own logger wrote, in both formats."""

from __future__ import annotations

import ast
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.log_report import records, slow, table
from scripts.log_report.errors import kind_of
from stack.rotate import rotate

ROOT = Path(__file__).resolve().parents[2]
Report = Callable[..., "subprocess.CompletedProcess[str]"]

WRITER = """
import logging, sys, time
from pathlib import Path
from types import SimpleNamespace
from app.http import context
from app.observe import logs
from app.observe.access_log import AccessLog
from app.settings.model import load
from sluice import timings
from sluice.statistics.operations import Operations

logs.set_up(load(_env_file=None, log_file=Path(sys.argv[1]), log_format=sys.argv[2], stats_dir=Path(sys.argv[3])))
context.request_id.set("r-1")
context.trace_id.set("0af7651916cd43dd8448eb211c80319c")

pool = logging.getLogger("sluice.client")
pool.warning("connection pool not ready: ServerSelectionTimeoutError: h1:27117: refused,[::1]:27118: refused")
pool.info("connection pool ready: pymongo driver, h1:27117, h2.example:27118")
pool.info("connection pool ready: pymongo driver, h1:27117, h2.example:27118")
pool.info("connection pool closed")

operations = Operations(0.0, [])
with timings.collect(lambda: "GET /users/{id}"), operations.measure("users", "find_one"):
    time.sleep(1.0)
with operations.measure("users", "create_indexes"):
    pass
for number in range(1, 101):
    logging.getLogger("sluice.statistics.operations").warning(
        "Execution time of %s (seconds): %.3f", "users.find for GET /users", number / 10, extra={"unlimited": True}
    )
for number in range(25):
    with timings.collect(lambda: "GET /users/{id}"), operations.measure("users", "find_one"):
        pass

app = logging.getLogger("app.http.middleware")
for number in range(3):
    try:
        try:
            {}["connection pool"]
        except KeyError as error:
            forged = "2026-01-01 00:00:00.000 | ERROR | worker=0 request=- | app:forge:1 - connection pool forged"
            raise RuntimeError(f"broken\\n2 lines, Execution time 0.0\\n{forged}") from error
    except RuntimeError:
        app.exception("GET /users/%d failed", number)
try:
    raise ExceptionGroup("two", [ValueError("a"), OSError("b")])
except ExceptionGroup:
    app.exception("grouped")
app.error("never raised", exc_info=OSError("odd"))
app.error("Worker (pid:%d) was sent SIGKILL!", 4711)
app.error("Worker (pid:%d) was sent SIGKILL!", 4712)
app.info("a message with ERROR in it")

access = AccessLog("problems")
for number in range(30):
    path = f"/users/{number}/connection pool ERROR\\x1b[2J"
    access.write({"method": "GET", "path": path, "route": SimpleNamespace(path="/users/{id}")}, 503, 0.1)
access.write({"method": "GET", "path": "/slow", "route": SimpleNamespace(path="/slow")}, 200, 1.5)
access.write({"method": "GET", "path": "/slow", "route": SimpleNamespace(path="/slow")}, 0, 1.5)
"""


@pytest.fixture(scope="module", params=["text", "json"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    log = folder / "api.log"
    subprocess.run([sys.executable, "-c", WRITER, log, request.param, folder], cwd=ROOT / "api", check=True)
    return log


@pytest.fixture
def report(tmp_path: Path) -> Report:
    def run(*arguments: object, data: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        ran = subprocess.run(
            [ROOT / "scripts" / "logs.sh", *map(str, arguments)],
            cwd=tmp_path,  # from any folder
            env={**os.environ, "SLUICE_PYTHON": sys.executable, **environment},
            input=data,
            capture_output=True,
        )
        return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode())

    return run


def columns(text: str) -> list[list[str]]:
    """The table's cells, without its header."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()[1:]]


def test_pool_events_are_counted_by_kind_and_member(report: Report, log: Path) -> None:
    ran = report("pool", log)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [row[:3] for row in columns(ran.stdout)] == [
        ["not ready (ServerSelectionTimeoutError)", "h1:27117", "1"],
        ["not ready (ServerSelectionTimeoutError)", "[::1]:27118", "1"],
        ["ready", "h1:27117", "2"],
        ["ready", "h2.example:27118", "2"],
        ["closed", "-", "1"],
    ]
    times = [time for row in columns(ran.stdout) for time in row[3:]]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", time) for time in times)


def test_slow_operations_have_percentiles_by_route(report: Report, log: Path) -> None:
    ran = report("slow", log)
    assert (ran.returncode, ran.stderr) == (0, "")
    first, second, third = columns(ran.stdout)
    assert first == ["users.find", "GET /users", "100", "0", "5.000", "9.500", "9.900", "10.000", "505.000"]
    assert second[:4] == ["users.find_one", "GET /users/{id}", "20", "6"]
    assert float(second[7]) >= 1.0
    assert third[:4] == ["users.create_indexes", "-", "1", "0"]


def test_over_leaves_out_what_was_faster_just_as_the_grep_does(report: Report, log: Path) -> None:
    (row,) = columns(report("slow", "--over", "9.7", log).stdout)
    assert row[2:5] == ["3", "0", "9.900"]
    if not log.read_text().startswith("{"):
        typed = """grep "Execution time" "$0" | awk '$NF > 9.7' | wc -l"""
        assert subprocess.check_output(["bash", "-c", typed, log]).strip() == b"3"
    assert report("slow", log, "--over", "60").stdout == "No slow operations.\n"


def test_errors_are_grouped_by_kind(report: Report, log: Path) -> None:
    ran = report("errors", log)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = {row[0]: row[1:] for row in columns(ran.stdout)}
    assert {kind: int(row[0]) for kind, row in rows.items()} == {
        "503 GET /users/{id}": 30,
        "RuntimeError": 3,
        "Worker (pid:#) was sent SIGKILL!": 2,
        "ExceptionGroup": 1,
        "OSError": 1,
        "no answer GET /slow": 1,
    }
    assert rows["RuntimeError"][3] == "GET /users/0 failed: RuntimeError: broken [request r-1]"
    assert rows["OSError"][3] == "never raised: OSError: odd [request r-1]"
    assert all(row[1] <= row[2] for row in rows.values())


def test_what_a_terminal_might_obey_is_escaped(report: Report, log: Path) -> None:
    assert r"ERROR\x1b[2J" in report("errors", log).stdout


def test_the_same_from_gzip_and_standard_input(report: Report, log: Path, tmp_path: Path) -> None:
    expected = report("errors", log).stdout
    (tmp_path / "api.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
    assert report("errors", "api.log.1.gz").stdout == expected
    assert report("errors", "-", data=log.read_bytes()).stdout == expected
    assert report("errors", "-", data=gzip.compress(log.read_bytes())).stdout == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"api-1        | ", b"api-2        | "),
        (b"\x1b[36mapi-1  | \x1b[0m", b"\x1b[33mapi-2  | \x1b[0m"),
        (b"api-1  | 2026-11-26T00:36:13.123456789Z ", b"api-2  | 2026-11-26T00:36:13.2Z "),
        (b"[pod/api-7d9f-x2x/api] ", b"[pod/api-7d9f-abc/api] "),
        (b"[pod/api-7d9f-x2x/api] 2026-11-26T00:36:13.123456789+01:00 ", b"[pod/api-7d9f-abc/api] "),
        (b"2026-11-26T00:36:13.123456789Z ", None),
        (b"2026-11-26T00:36:13.123456789Z stdout F ", None),
        (b"\x1b[2K", None),
    ],
)
@pytest.mark.parametrize("kind", ["pool", "slow", "errors"])
def test_what_tools_put_before_a_line_and_colours_are_taken_off(
    report: Report, log: Path, kind: str, first: bytes, second: bytes | None
) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    other = b"2026-01-01 00:00:00.000 | INFO | worker=0 request=- | app:main:1 - nothing\n"
    prefixed = b"".join(first + line + (second + other if second else b"") for line in lines)
    ran = report(kind, "-", data=prefixed)
    assert (ran.stderr, ran.stdout) == ("", report(kind, log).stdout)


def test_the_running_stacks_log_is_the_default(report: Report, log: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.log").write_bytes(log.read_bytes())
    assert report("slow", SLUICE_HOME=str(tmp_path)).stdout == report("slow", log).stdout


def test_what_rotation_has_taken_from_it_is_in_the_report(report: Report, log: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    stacks = tmp_path / "logs" / "api.log"
    lines = log.read_bytes().splitlines(keepends=True)
    for first in range(0, len(lines), len(lines) // 3 + 1):
        if stacks.exists():
            rotate(stacks)
        with stacks.open("ab") as file:
            file.writelines(lines[first : first + len(lines) // 3 + 1])
    assert sorted(path.name for path in stacks.parent.iterdir()) == ["api.log", "api.log.1", "api.log.2"]
    for kind in ("pool", "slow", "errors"):
        ran = report(kind, SLUICE_HOME=str(tmp_path))
        assert (ran.stderr, ran.stdout) == ("", report(kind, log).stdout)


def test_lines_that_are_no_records_are_counted_and_said(report: Report, log: Path) -> None:
    strange = b'torn 2026 connection pool\n{"time": "2026", "message": "connection pool"}\n\n\xff\xfe\n'
    ran = report("pool", "-", data=log.read_bytes() + strange)
    assert ran.stdout == report("pool", log).stdout
    total = len(log.read_bytes().splitlines())
    assert ran.returncode == 0
    assert f"3 of {total + 4:,} lines are no log records, first line {total + 1:,}: torn 2026" in ran.stderr


@pytest.mark.parametrize("name", ["missing.log", "."])
def test_a_log_that_can_not_be_read_is_one_clear_line(report: Report, name: str) -> None:
    ran = report("pool", name)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(rf"logs\.sh: {re.escape(name)} can't be read: \w[\w ]+\n", ran.stderr)


def test_a_damaged_gzip_file_is_one_clear_line(report: Report, log: Path) -> None:
    ran = report("pool", "-", data=gzip.compress(log.read_bytes())[:-40])
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"logs\.sh: - is a damaged gzip file: .*\n", ran.stderr)


def test_an_empty_log_has_nothing_to_report(report: Report) -> None:
    for kind, words in (("pool", "pool events"), ("slow", "slow operations"), ("errors", "errors")):
        ran = report(kind, "-", data=b"")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"No {words}.\n", "")


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["slow", "--over", "-1"], ["slow", "--over", "nan"], ["pool", "--over", "1"]]
)
def test_wrong_usage_ends_with_2(report: Report, arguments: list[str]) -> None:
    ran = report(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "usage: logs.sh" in ran.stderr


def test_help_tells_how(report: Report) -> None:
    ran = report("--help")
    assert ran.returncode == 0
    assert all(word in ran.stdout for word in ("pool", "slow", "errors", "--over", "Exit status"))
    assert "API's containers if they run, else the native one's" in " ".join(ran.stdout.split())


def test_head_brings_no_traceback(log: Path) -> None:
    command = f"set -o pipefail; {ROOT}/scripts/logs.sh errors {log} | true"
    ran = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "SLUICE_PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_percentile_is_one_of_the_values() -> None:
    assert [slow.percentile([1, 2, 3, 4], rank) for rank in (50, 95, 99)] == [2, 4, 4]
    assert slow.percentile([7], 50) == 7


def test_tables_keep_numbers_to_the_right_and_fit_the_terminal() -> None:
    rows = [("a", 1_234, 0.5), ("longer", 5, 10.25)]
    assert table.lines(("KIND", "COUNT", "MAX"), rows) == [
        "KIND    COUNT     MAX",
        "a       1,234   0.500",
        "longer      5  10.250",
    ]
    assert table.lines(("KIND", "COUNT", "MAX"), rows, 8)[1] == "a       "


def test_a_problem_type_is_a_kind() -> None:
    record = records.Record("", "WARNING", "0", "r", "app.http.errors", "answered /problems/queue-full to 10.0.0.1")
    assert kind_of(record) == ("/problems/queue-full", 1)


REPORTS = sorted((ROOT / "scripts/log_report").glob("*.py"))
LATER = {"slots", "kw_only", "strict"}
"""Arguments that an older Python's dataclasses and zip() don't take."""


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.name)
def test_the_reports_are_written_for_an_older_python(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.keyword) and node.arg in LATER), node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            assert not any(isinstance(part, ast.BinOp) for part in ast.walk(node)), node.lineno


def old_python() -> str:
    for candidate in ("python3.9", *map(str, sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python")))):
        with suppress(OSError):
            if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
                return candidate
    pytest.skip("there is no Python 3.9 here")


@pytest.mark.parametrize("name", ["pool", "slow", "errors"])
def test_an_older_python_reports_the_same(report: Report, log: Path, name: str) -> None:
    ran = report(name, log, SLUICE_PYTHON=old_python())
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", report(name, log).stdout)


def test_a_python_that_is_too_old_is_said(report: Report, log: Path, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    ran = report("pool", log, SLUICE_PYTHON=str(tmp_path / "python"))
    assert (ran.returncode, ran.stderr) == (1, "logs.sh: Python 3.9 or later is needed\n")
