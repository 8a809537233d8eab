"""What an application may rely on, and what is there without the extras."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from bson.codec_options import TypeRegistry
from pymongo.errors import ConfigurationError, InvalidName

import sluice
from sluice import Limits, Options, PoolUnavailable, Slot, Sluice, statistics
from sluice.options import milliseconds
from tests.conftest import OpenSluice, until

API = Path(__file__).resolve().parents[2]

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
ONLY_PYMONGO = ("motor", "psutil", "prometheus_client", "pydantic", "fastapi")


def run_without(missing: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run this in an interpreter that has none of these packages."""
    program = WITHOUT.format(missing=set(missing)) + code
    return subprocess.run([sys.executable, "-c", program], cwd=API, capture_output=True, text=True, check=False)


def test_each_public_name_is_there_and_described() -> None:
    for name in sluice.__all__:
        assert hasattr(sluice, name)
    own = {name: it for name in sluice.__all__ if isinstance(it := getattr(sluice, name), type | FunctionType)}
    assert [name for name, it in own.items() if not it.__doc__] == []


def test_the_core_needs_nothing_but_pymongo(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from sluice import Options, Slot, Sluice, statistics

async def main():
    slot = Slot.claim(Path({str(tmp_path)!r}))
    sluice = Sluice(Options(url="mongodb://127.0.0.1:1", database="test"), slot)
    await sluice.open()
    (worker,) = statistics.read_all(slot.directory)
    assert worker.memory_bytes is None and worker.cpu_seconds > 0
    await sluice.close()

asyncio.run(main())
"""
    ended = run_without(ONLY_PYMONGO, code)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("import sluice; sluice.SluiceCollector", "prometheus_client", "metrics"),
        ("from sluice import SluiceCollector", "prometheus_client", "metrics"),
        ("from sluice.drivers import driver; driver('motor')", "motor", "motor"),
    ],
)
def test_what_needs_an_extra_names_it(code: str, package: str, extra: str) -> None:
    ended = run_without(ONLY_PYMONGO, code)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: ")
    assert f"needs the package {package}: pip install 'sluice-mongodb[{extra}]'" in last


def test_a_name_that_is_not_public_is_an_ordinary_mistake() -> None:
    with pytest.raises(AttributeError, match="module 'sluice' has no attribute 'Sluise'"):
        _ = sluice.Sluise


@pytest.mark.parametrize("numbers", [range(100_001), range(100_001, 10_000_001, 997)], ids=["all", "some"])
def test_whole_milliseconds_pass_through_unchanged(numbers: range) -> None:
    assert [number for number in numbers if milliseconds(number / 1000) != number] == []


async def test_with_async_with_it_is_opened_and_closed(options: Options, tmp_path: Path) -> None:
    slot = Slot.claim(tmp_path)
    async with Sluice(options, slot) as sluice:
        assert sluice.ready
        await sluice.collection("things").insert_one({})
    with pytest.raises(PoolUnavailable):
        sluice.collection("things")
    assert Slot.claim(tmp_path).number == slot.number


async def test_without_a_slot_workers_of_one_name_share_a_folder(options: Options) -> None:
    name = f"test {uuid.uuid4()}/"
    try:
        async with Sluice(replace(options, app_name=name)) as one, Sluice(replace(options, app_name=name)) as other:
            assert one.slot.directory == other.slot.directory
            one.publish()
            known = statistics.read_all(one.slot.directory)
        assert [worker.worker for worker in known] == [0, 1]
        assert one.slot.directory.stat().st_mode & 0o777 == 0o700
        async with Sluice(replace(options, app_name=name, database=f"{options.database}_")) as another:
            assert another.slot.directory != one.slot.directory
        shutil.rmtree(another.slot.directory)
    finally:
        shutil.rmtree(one.slot.directory)


async def test_what_is_not_open_says_so(options: Options, tmp_path: Path) -> None:
    sluice = Sluice(options, Slot.claim(tmp_path))
    with pytest.raises(PoolUnavailable, match="open this Sluice first"):
        sluice.collection("things")
    async with sluice:
        with pytest.raises(RuntimeError, match="opened before"):
            await sluice.open()
    await sluice.close()
    with pytest.raises(PoolUnavailable, match="closed"):
        sluice.reader("things")
    with pytest.raises(RuntimeError, match="opened before"):
        await sluice.open()
    unknown = replace(options, url="mongodb+srv://nowhere.invalid/", server_selection_timeout=0.1)
    async with Sluice(unknown, Slot.claim(tmp_path)) as other:
        await until(lambda: "invalid" in (other.reason or ""))
        with pytest.raises(PoolUnavailable, match=r"nowhere\.invalid"):
            other.collection("things")
    unused = Sluice(options, Slot.claim(str(tmp_path)))
    await unused.close()
    with pytest.raises(RuntimeError, match="closed before"):
        await unused.open()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client": {"retryWrites": "perhaps"}}, ValueError),
        ({"url": "http://h"}, ConfigurationError),
        ({"database": "a b"}, InvalidName),
    ],
)
async def test_options_that_the_driver_refuses_are_told_at_once(
    options: Options, tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with Sluice(replace(options, **changes), Slot.claim(tmp_path)):
            pass
    slot = Slot.claim(tmp_path)
    assert slot.number == 0
    sluice = Sluice(replace(options, **changes), slot)  # a service goes on, and says why it isn't ready
    await sluice.open()
    await until(lambda: sluice.reason not in (None, "MongoDB has not been reached yet"))
    assert not sluice.ready
    await sluice.close()


async def test_times_are_reported_and_handed_to_the_driver_as_they_were_set(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice(
        max_idle_time=1.001,
        wait_queue_timeout=1.009,
        connect_timeout=1.001,
        socket_timeout=9.999,
        server_selection_timeout=2.003,
    )
    config = sluice.snapshot().pool_config
    assert (config.max_idle_time_ms, config.wait_queue_timeout_ms) == (1001, 1009)
    client = sluice.client if sluice.options.driver == "pymongo" else sluice.client.delegate
    assert client.options.server_selection_timeout == 2.003
    assert client.options.pool_options.connect_timeout == 1.001
    assert client.options.pool_options.socket_timeout == 9.999
    assert client.options.pool_options.max_idle_time_seconds == 1.001


async def test_the_same_collection_and_options_give_the_same_reader_and_writer(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    assert sluice.reader("a") is sluice.reader("a")
    assert sluice.reader("a", projection={"x": 1}) is sluice.reader("a", projection={"x": 1})
    assert sluice.writer("a") is sluice.writer("a")
    assert sluice.writer("a", limits=Limits(lanes=1)) is sluice.writer("a", limits=Limits(lanes=1))
    different = [
        sluice.reader("a"),
        sluice.reader("b"),
        sluice.reader("a", projection={"x": 1}),
        sluice.reader("a", projection={"x": 1.0, "y": 1}),
        sluice.reader("a", projection={"y": 1, "x": 1.0}),
        sluice.reader("a", limits=Limits(lanes=1)),
    ]
    assert len({id(reader) for reader in different}) == len(different)


async def test_what_a_client_of_the_driver_does_goes_through_the_turnstile(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    before = sum(pool.stats.wait_time.count for pool in sluice.snapshot().pools)
    await sluice.client["another_database"]["things"].find_one({})
    assert sum(pool.stats.wait_time.count for pool in sluice.snapshot().pools) > before
    await sluice.close()
    with pytest.raises(PoolUnavailable):
        _ = sluice.client


def test_everything_can_be_imported_without_an_extra() -> None:
    ended = run_without(ONLY_PYMONGO, "from sluice import *; Sluice, Options")
    assert ended.returncode == 0, ended.stderr


async def test_whoever_is_cancelled_while_it_opens_leaves_nothing_open(options: Options, tmp_path: Path) -> None:
    away = replace(options, url="mongodb://127.0.0.1:1/?replicaSet=rs0", server_selection_timeout=30)
    before = asyncio.all_tasks()
    sluice = Sluice(away, Slot.claim(tmp_path))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3), sluice:
            pytest.fail("it is not there")
    await until(lambda: not {task for task in asyncio.all_tasks() - before if task.get_name().startswith("sluice-")})
    assert Slot.claim(tmp_path).number == sluice.slot.number
    with pytest.raises(PoolUnavailable, match="closed"):
        sluice.collection("things")


async def test_closing_again_touches_nobody_elses_statistics(options: Options, tmp_path: Path) -> None:
    async with Sluice(options, Slot.claim(tmp_path)) as first:
        pass
    async with Sluice(options, Slot.claim(tmp_path)) as second:
        assert second.slot.number == first.slot.number
        second.publish()
        await first.close()
        (worker,) = statistics.read_all(tmp_path)
        assert worker.started_at == second.snapshot().started_at


async def test_a_collection_is_the_same_for_the_same_options(open_sluice: OpenSluice) -> None:
    sluice = await open_sluice()
    registry: dict[str, Any] = {"type_registry": TypeRegistry(), "tz_aware": True}
    collection = sluice.collection("things", registry)
    assert collection is sluice.collection("things", dict(reversed(registry.items())))
    assert collection is not sluice.collection("things")
    assert sluice.collection("things") is sluice.collection("things", {})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"lanes": 0}, "limit lanes=0: allowed is a whole number, 1 or more"),
        ({"batch": 0}, "limit batch=0: allowed is a whole number, 1 or more"),
        ({"batch_bytes": -1}, "limit batch_bytes=-1: allowed is a whole number, 1 or more"),
        ({"waiting": "5"}, "limit waiting='5': allowed is a whole number, 0 or more"),
        ({"patience": -1}, "limit patience=-1: allowed is 0 or more, in seconds"),
    ],
)
def test_limits_let_something_leave(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Limits(**limits)


@pytest.mark.parametrize(
    "url", ["mongodb://app:ab/geheim@db1:27017/", "mongodb://app:ab@geheim@h/", "mongodb://h:geheim"]
)
async def test_what_may_be_a_part_of_a_password_is_in_no_error(options: Options, tmp_path: Path, url: str) -> None:
    sluice = Sluice(replace(options, url=url), Slot.claim(tmp_path))
    await sluice.open()
    await until(lambda: "has not been reached" not in (sluice.reason or ""))
    assert "geheim" not in str(sluice.reason)
    with pytest.raises(PoolUnavailable) as refused:
        sluice.collection("things")
    assert "geheim" not in str(refused.value)
    await sluice.close()
