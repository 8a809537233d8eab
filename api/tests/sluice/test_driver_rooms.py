"""Each driver has its room: PyMongo's knows nothing of Motor, Motor's nothing of PyMongo's, and one may go."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import sluice
from sluice.drivers import DRIVERS
from stack.replica_set import ReplicaSet
from tests.sluice.private_names import is_drivers, modules, syntax

PYMONGO, MOTOR = "sluice.drivers.pymongo", "sluice.drivers.motor"
MOTORS = ("motor", "pymongo.synchronous", MOTOR)
PYMONGOS = ("pymongo.asynchronous", PYMONGO)


def imported(module: ModuleType) -> Iterator[str]:
    """The modules that a module imports, for types only too, and where what it imports of a driver's is really from."""
    for node in ast.walk(syntax(module)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for name in node.names if is_drivers(node.module) else []:
                value = getattr(import_module(node.module), name.name, None)
                home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
                yield home if isinstance(home, str) else f"{node.module}.{name.name}"


def of(names: Iterator[str], packages: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(name == package or name.startswith(f"{package}.") for package in packages)]


def room(package: str) -> list[ModuleType]:
    return [module for module in modules() if module.__name__ == package or module.__name__.startswith(f"{package}.")]


def test_no_module_mixes_the_drivers() -> None:
    assert len(room(PYMONGO)) > 3
    assert len(room(MOTOR)) > 3
    for module in room(PYMONGO):
        assert of(imported(module), MOTORS) == [], module.__name__
    for module in room(MOTOR):
        assert of(imported(module), PYMONGOS) == [], module.__name__


def test_nothing_outside_motors_room_knows_it() -> None:
    for module in modules():
        if not module.__name__.startswith(MOTOR):
            assert of(imported(module), MOTORS) == [], module.__name__
    for module in modules():
        if not module.__name__.startswith((PYMONGO, MOTOR)):
            assert of(imported(module), (PYMONGO,)) == [], module.__name__


WITHOUT_MOTOR = """
import asyncio, importlib.abc, sys, tempfile
from pathlib import Path

class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "motor":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())

from sluice import Options, Slot, Sluice

async def main(url):
    with tempfile.TemporaryDirectory() as folder:
        slot = Slot.claim(Path(folder))
        sluice = Sluice(Options(url=url, database="test_rooms", min_pool_size=0), slot)
        await sluice.open()
        assert await sluice.wait_until_prepared(20)
        things = sluice.collection("things")
        await things.delete_many({})
        async with sluice.transaction() as session:
            await things.insert_one({"_id": 1}, session=session)
        assert Path(sys.modules["sluice"].__file__).is_relative_to(Path.cwd())
        print(await sluice.reader("things").get(1), sluice.snapshot().pool.total_created > 0)
        await sluice.close()
        try:
            Sluice(Options(url=url, database="test_rooms", driver="motor"), slot)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("gone", "refusal"),
    [
        (False, "ModuleNotFoundError: driver motor needs the package motor: pip install 'sluice-mongodb[motor]'"),
        (True, "ValueError: driver motor: allowed is pymongo"),
    ],
    ids=["not installed", "its folder and its line deleted"],
)
def test_the_core_works_without_motor(replica_set: ReplicaSet, tmp_path: Path, gone: bool, refusal: str) -> None:
    copy = tmp_path / "sluice"
    shutil.copytree(Path(sluice.__path__[0]), copy, ignore=shutil.ignore_patterns("__pycache__"))
    if gone:
        shutil.rmtree(copy / "drivers" / "motor")
        chooser = copy / "drivers" / "__init__.py"
        lines = chooser.read_text().splitlines(keepends=True)
        line = [line for line in lines if DRIVERS["motor"] in line]
        assert len(line) == 1
        chooser.write_text("".join(other for other in lines if other not in line))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_MOTOR, replica_set.url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    works, refused = ran.stdout.splitlines()
    assert works == "{'_id': 1} True"
    assert refused.startswith(refusal)
