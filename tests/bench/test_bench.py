"""The benchmark runs, stores what it measured in the right shape, and the documentation shows what is stored."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from bench import openloop, report, results
from bench.results import Results, Row, Workload
from bench.stacks import REST, attribute
from bench.targets import targets

ROOT = Path(__file__).parents[2]
LATENCIES = {"p50", "p99", "p999", "max"}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [ROOT / "api", ROOT]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": ":".join(map(str, paths))}
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)


def test_a_short_run_stores_every_round_and_prints_tables(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    short = ["--quick", "--seconds", "0.15", "--repeat", "2", "--no-plots", "--results", str(path)]
    done = bench(*short, "--only", "pool", "--only", "fairness")
    assert done.returncode == 0, done.stderr
    assert "| Writer" in done.stdout
    stored = results.load(path)
    assert set(stored.workloads) == {"pool", "fairness"}
    sides = {
        (row.labels["driver"], row.labels["operation"], row.labels["side"]) for row in stored.workloads["pool"].rows
    }
    assert sides == {
        (driver, operation, side)
        for driver in ("pymongo", "motor")
        for operation, last in (("find_one", "Reader"), ("insert_one", "Writer"))
        for side in ("driver", "fair", last)
    }
    for row in stored.workloads["pool"].rows:
        assert [set(figures) for figures in row.rounds] == [{"rate", *LATENCIES}] * 2
    for row in stored.workloads["fairness"].rows:
        assert {"least", "most", *LATENCIES} <= set(row.rounds[0])
    assert all(target.measured is not None for target in targets(stored))
    assert str(ROOT) not in path.read_text()


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--repeat", "0"], ["--seconds", "-1"]])
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert "error:" in done.stderr


async def test_the_open_loop_keeps_its_schedule_whatever_the_server_does() -> None:
    """A server that refuses every other request at once, and takes half a second for the rest."""
    answers = itertools.cycle([(b"200 OK", 0.5), (b"503 Service Unavailable", 0.0)])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                status, seconds = next(answers)
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    load = openloop.Load(openloop.Order(f"http://127.0.0.1:{port}", ["/"], rate=200, seconds=1.0, warm_up=0.5))
    figures = await load.run()
    server.close()
    assert figures["unanswered"] == figures["broken"] == 0
    assert load.opened > 20  # nobody waited for the half second of those before
    assert figures["p50"] >= 500 > figures["refused_p50"]
    assert figures["goodput"] > 0
    assert figures["refusals"] > 0


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    workload = Workload([], rows=[Row({"side": "a"}, [{"rate": 2.0}, {"rate": 30.0}, {"rate": 9.0}])])
    workload.rows.append(Row({"side": "b"}, [{"rate": 1.0}, {"rate": 10.0}, {"rate": 1.0}]))
    assert workload.ratio("rate", {"side": "a"}, {"side": "b"}) == 3
    assert workload.ratio("rate", {"side": "a"}, {"side": "missing"}) is None


def test_what_was_stored_is_what_is_loaded(tmp_path: Path) -> None:
    stored = Results({"cores": "2"})
    stored.add("pool", Workload(["how"], rows=[Row({"side": "a", "callers": 1}, [{"rate": 12345.678}])]))
    stored.save(tmp_path / "results.json")
    loaded = results.load(tmp_path / "results.json")
    assert loaded.workloads["pool"].rows[0].rounds == [{"rate": 12350.0}]  # four digits
    assert json.loads((tmp_path / "results.json").read_text())["machine"] == {"cores": "2"}


def test_a_sample_belongs_to_the_innermost_frames_package() -> None:
    outer = "<module> (/venv/bin/gunicorn:8);run (/usr/lib/python3.11/asyncio/runners.py:118)"
    assert attribute(f"{outer};get (/srv/api/sluice/coalescing/reader.py:70)") == (
        "sluice: coalescing",
        "get (coalescing/reader.py)",
    )
    assert attribute(f"{outer};write (/venv/site-packages/uvicorn/protocols/http/x.py:1)")[0] == "uvicorn"
    assert attribute(outer)[0] == REST


def test_the_documentation_shows_the_stored_results() -> None:
    path = results.HERE / "full.json"
    if not path.exists():
        pytest.skip("there was no full run yet")
    page = report.PAGE.read_text()
    assert report.rendered(page, results.load(path)) == page
