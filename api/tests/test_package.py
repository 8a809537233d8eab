"""The pool core as a package: built, installed where nothing else is, and its examples run on the real replica set."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from sluice.statistics.slots import read_all, shared_folder
from stack.free_ports import free_ports
from stack.replica_set import ReplicaSet

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DATABASE = "shop"
"""Of the examples."""
FOLDER = shared_folder(f"sluice-{DATABASE}")
"""Of their statistics, which go on from those of an earlier run."""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In an empty folder of its own, so that nothing is found by chance."""
    with tempfile.TemporaryDirectory() as empty:
        return subprocess.run(
            [str(part) for part in command],
            cwd=empty,
            env={"PATH": os.environ["PATH"], "HOME": empty, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
            timeout=110,
        )


def install(python: Path, *packages: str) -> None:
    """The versions are those of the lock file."""
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--disable-pip-version-check")
    done = run(*pip, "-c", python.parents[2] / "constraints.txt", *packages, **os.environ)  # where the index is, say
    assert done.returncode == 0, done.stderr


@contextmanager
def empty_environment(folder: Path) -> Iterator[Path]:
    """The Python of a virtual environment without any package."""
    pins = re.findall(r"^([\w.-]+==[^ ;\\]+)", (ROOT / "api/requirements-dev.lock").read_text(), re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(pins))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    yield folder / "venv/bin/python"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built from a copy: the build leaves files beside the source."""
    copy, target = tmp_path_factory.mktemp("source") / "api", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT / "api", copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, copy)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no package can be had."""
    pip = (sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", tmp_path_factory.mktemp("probe"))
    if run(*pip, f"pymongo=={version('pymongo')}", **os.environ).returncode != 0:
        pytest.skip("no package index can be reached, which has what the package and its examples need")


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def bare(index: None, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python with the package and what it depends on."""
    with empty_environment(tmp_path_factory.mktemp("bare")) as python:
        install(python, str(wheel))
        yield python


@pytest.fixture(scope="module")
def full(index: None, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python with the package, its extras, and what the examples need."""
    with empty_environment(tmp_path_factory.mktemp("full")) as python:
        install(python, f"{wheel}[motor,metrics]", "fastapi", "uvicorn", "beanie")
        yield python


def test_wheel_and_sdist_have_the_pool_core_alone(built: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"sluice"}
    modules = {str(path.relative_to(ROOT / "api")) for path in (ROOT / "api/sluice").rglob("*.py")}
    assert set(names) >= {"sluice/py.typed", *modules}
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        inside = {name.partition("/")[2].partition("/")[0] for name in sdist.getnames()} - {""}
    assert inside - {"PKG-INFO", "setup.cfg", "sluice_mongodb.egg-info"} == {
        "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "sluice",
    }  # fmt: skip


def test_the_package_depends_on_pymongo_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        described = message_from_bytes(archive.read(metadata))
    lines = [line for line in described.get_all("Requires-Dist", []) if "extra" not in line]
    required = [re.split(r"[<>=~; ]", line, maxsplit=1)[0] for line in lines]
    assert (described["Name"], required) == ("sluice-mongodb", ["pymongo"])
    assert set(described.get_all("Provides-Extra", [])) == {"motor", "metrics"}


def test_without_its_extras_the_package_works_and_names_them(bare: Path, replica_set: ReplicaSet) -> None:
    code = """
import asyncio, sys
import sluice
from pathlib import Path
from typing import Any
from sluice import Options, Slot, Sluice

async def main():
    slot = Slot.claim(Path(sys.argv[2]))
    async with Sluice(Options(url=sys.argv[1], database="test_package", min_pool_size=0), slot) as opened:
        await opened.database.command("ping")
        known = opened.snapshot()
        print(sluice.statistics.summarize([known]).pool.use_time.count > 0, known.memory_bytes)

asyncio.run(main())
on_motor = Options(url="mongodb://h", database="d", driver="motor")
for needed in (lambda: sluice.SluiceCollector, lambda: Sluice(on_motor)):
    try:
        needed()
    except ModuleNotFoundError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        done = run(bare, "-c", code, replica_set.url, folder)
    assert done.stdout.splitlines() == [
        "True None",
        "sluice.SluiceCollector needs the package prometheus_client: pip install 'sluice-mongodb[metrics]'",
        "driver motor needs the package motor: pip install 'sluice-mongodb[motor]'",
    ], done.stderr


# The examples


@pytest.fixture
def shop(replica_set: ReplicaSet) -> Iterator[MongoClient[dict[str, Any]]]:
    """Its database is empty before and gone after; so is the folder of the examples' statistics, if it was."""
    was_there = FOLDER.exists()
    with replica_set.direct(replica_set.primary()) as client:
        client.drop_database(DATABASE)
        yield client
        client.drop_database(DATABASE)
    if not was_there:
        shutil.rmtree(FOLDER)


def test_the_worker(full: Path, replica_set: ReplicaSet, shop: MongoClient[dict[str, Any]], driver: str) -> None:
    before = sum(pool.stats.total_created for worker in read_all(FOLDER) for pool in worker.pools)
    shop[DATABASE].jobs.insert_many([{"_id": number, "number": number, "taken": None} for number in range(200)])
    done = run(full, EXAMPLES / "worker.py", MONGODB_URL=replica_set.url, MONGODB_DRIVER=driver)
    said = re.fullmatch(r"200 jobs, (\d+) uses of (\d+) connections in all runs\n", done.stdout)
    assert said, done.stdout + done.stderr
    assert int(said[1]) >= 200
    assert int(said[2]) - before <= 4 * 3
    assert {row["job"]: row["square"] for row in shop[DATABASE].results.find()} == {n: n * n for n in range(200)}


def test_the_beanie_application(full: Path, replica_set: ReplicaSet, shop: MongoClient[dict[str, Any]]) -> None:
    done = run(full, EXAMPLES / "documents.py", MONGODB_URL=replica_set.url)
    richest, used = done.stdout.splitlines() or ("", done.stderr)
    assert richest == "[('owner 1', 130)]"
    assert int(used.split()[0]) > 16 + 3, "not every operation went through the turnstile"
    assert sorted(row["balance"] for row in shop[DATABASE].Account.find()) == [70, *[100] * 14, 130]


async def test_the_web_service(
    full: Path, replica_set: ReplicaSet, shop: MongoClient[dict[str, Any]], driver: str
) -> None:
    (port,) = free_ports(1)
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "MONGODB_URL": replica_set.url, "MONGODB_DRIVER": driver}
    service = await asyncio.create_subprocess_exec(
        *(full, "-m", "uvicorn", "web:app", "--port", str(port)),
        cwd=EXAMPLES,
        env={"PATH": os.environ["PATH"], **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert service.stderr is not None
        while b"Uvicorn running" not in (line := await service.stderr.readline()):
            assert line, "it has ended"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            assert (await http.get("/products/tea")).status_code == 404
            assert (await http.put("/products/tea", json={"price": 3})).status_code == 200
            answers = await asyncio.gather(*(http.get("/products/tea") for _ in range(100)))
            assert [answer.json() for answer in answers] == [{"_id": "tea", "price": 3}] * 100
            pool = (await http.get("/pool")).json()
        assert pool["use_time"]["count"] >= 4
        assert pool["active_connections"] == 0
    finally:
        service.terminate()
        await asyncio.wait_for(service.communicate(), 20)
    assert service.returncode in (0, -signal.SIGTERM)
