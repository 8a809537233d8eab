"""Readers and writers against what plain driver calls promise, under any mix of calls, cancellations and faults.

A program is what callers do and what befalls them. Whatever order it ran in, each key's history must be one that
single operations could have had (linearizable): a read returns a state that existed between its start and its end, an
acknowledged write happened once in between, and only what was told to be unknown may have gone either way.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, ExecutionTimeout, PyMongoError

from sluice import DeadlineExceeded, Options, PoolError, Slot, Sluice, deadline
from sluice.coalescing.coalescer import Coalescer, Entry, Limits
from sluice.statistics.snapshot import CoalescerStats
from stack.replica_set import ReplicaSet
from tests.conftest import until
from tests.sluice.support import held

AN_ID = ObjectId("66f1a2b3c4d5e6f7a8b9c0d1")
SAME_KEYS: list[list[Any]] = [  # what MongoDB takes for one key
    [1, 1.0, Int64(1), Decimal128("1.0")],
    [0, 0.0, -0.0, Int64(0)],
    [True],
    [AN_ID],
    [str(AN_ID)],
    [b"a", Binary(b"a", 0)],
    [Binary(b"a", 5)],
    [uuid.UUID(int=1), Binary(uuid.UUID(int=1).bytes, 4)],
    [math.nan, Decimal128("NaN")],
    [2**53, float(2**53)],
    [2**53 + 1],
    [{"a": 1}],
    [None],
    [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 999, tzinfo=UTC)],
]
READS, WRITES = ("get", "get_token", "find_one"), ("insert", "insert_one", "update_one", "delete_one")
BEFALLS: list[tuple[list[str], dict[str, Any]]] = [
    (["find"], {"errorCode": 2}),
    (["find"], {"closeConnection": True}),
    (["find", "insert"], {"blockConnection": True, "blockTimeMS": 60}),
    (["insert"], {"errorCode": 2}),
    (["insert"], {"errorCode": 112, "errorLabels": ["RetryableWriteError"]}),
    (["insert"], {"closeConnection": True}),
    (["insert", "update", "delete"], {"closeConnection": True, "blockConnection": True, "blockTimeMS": 30}),
    (["insert", "update"], {"writeConcernError": {"code": 64, "errmsg": "waiting"}}),
    (["insert"], {"writeConcernError": {"code": 91, "errmsg": "down", "errorLabels": ["RetryableWriteError"]}}),
    (["insert", "find"], {"errorCode": 91}),
]


@dataclass(frozen=True)
class Step:
    """What one caller does. `pause`: before the next one comes; `cancel`: after so long; 0 is one step of the loop."""

    kind: str
    key: Any = None
    same: int = -1
    pause: float | None = None
    cancel: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Fault:
    commands: list[str]
    data: dict[str, Any]
    times: int


@dataclass(frozen=True)
class Program:
    stored: list[int]
    steps: list[Step | Fault]
    limits: Limits


@dataclass
class Call:
    """What a caller did and learned; `unknown`: the write may have happened, at any time since."""

    step: Step
    token: int
    start: int
    end: float = math.inf
    result: Any = None
    duplicate: bool = False
    unknown: bool = False
    never: bool = False


@st.composite
def programs(draw: st.DrawFn) -> Program:
    groups = draw(st.lists(st.integers(0, len(SAME_KEYS) - 1), min_size=1, max_size=7, unique=True))
    keys = [(key, same) for same in groups for key in SAME_KEYS[same]]
    stored = draw(st.lists(st.sampled_from(groups), unique=True))

    def step() -> st.SearchStrategy[Step]:
        return st.builds(
            lambda kind, key, **rest: Step(kind, *key, **rest),
            kind=st.sampled_from([*READS, *["get"] * 5, *WRITES, "insert", "insert", "insert_new"]),
            key=st.sampled_from(keys),
            pause=st.sampled_from([None] * 7 + [0, 0.001, 0.004]),
            cancel=st.sampled_from([None] * 6 + [0, 0.001, 0.01]),
            limit=st.sampled_from([None] * 6 + [0.02, 0.1, 2.0]),
        )

    fault = st.builds(lambda what, times: Fault(what[0], what[1], times), st.sampled_from(BEFALLS), st.integers(1, 3))
    steps = draw(st.lists(st.one_of(*[step()] * 12, fault), min_size=10, max_size=60))
    limits = st.builds(
        Limits,
        lanes=st.integers(1, 2),
        batch=st.integers(2, 5),
        batch_bytes=st.sampled_from([40, 4 << 20]),
        waiting=st.sampled_from([4, 500]),
    )
    return Program(stored, steps, draw(limits))


class World:
    """Runs programs, each on a collection of its own, and says what was not as it must be."""

    def __init__(self, sluice: Sluice, admin: MongoClient[dict[str, Any]]) -> None:
        self.sluice, self.admin = sluice, admin
        self.names = (f"c{number}" for number in itertools.count())

    async def run(self, program: Program) -> None:
        self.calls: list[Call] = []
        self.ticks = itertools.count()
        self.wrong: list[str] = []
        self.faulty = False
        name = next(self.names)
        self.collection = self.sluice.collection(name)
        self.readers = {
            "get": self.sluice.reader(name, limits=program.limits),
            "get_token": self.sluice.reader(name, projection={"token": 1}, limits=program.limits),
        }
        self.writer = self.sluice.writer(name, limits=program.limits)
        self._watch(self.writer._coalescer)
        for reader in self.readers.values():
            self._watch(reader._coalescer)
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(30):
                await asyncio.gather(
                    *(self._call(Step("insert_one", SAME_KEYS[same][0], same)) for same in program.stored)
                )
                for step in program.steps:
                    if isinstance(step, Fault):
                        await asyncio.to_thread(self._befall, step)
                        continue
                    tasks.append(asyncio.create_task(self._call(step)))
                    if step.cancel is not None:
                        asyncio.get_running_loop().call_later(step.cancel, tasks[-1].cancel)
                    if step.pause is not None:
                        await asyncio.sleep(step.pause)
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self.admin.admin.command("configureFailPoint", "failCommand", mode="off")
        self.wrong += [repr(task.exception()) for task in tasks if not task.cancelled() and task.exception()]
        await until(lambda: held(self.sluice) == 0, 10)
        await until(lambda: self.sluice.ready, 10)
        await self._afterwards(name)
        assert not self.wrong

    def _befall(self, fault: Fault) -> None:
        self.faulty = True
        namespace = f"{self.sluice.options.database}.{self.collection.name}"
        data = {"failCommands": fault.commands, "namespace": namespace, **fault.data}
        self.admin.admin.command("configureFailPoint", "failCommand", mode={"times": fault.times}, data=data)

    def _watch(self, coalescer: Coalescer[Any, Any]) -> None:
        """Note what `Coalescer` would hide: an entry that is settled twice or never, a batch that nobody waits for."""
        run = coalescer._run

        async def watched(batch: Sequence[Entry[Any, Any]]) -> None:
            if len(batch) > coalescer.limits.batch:
                self.wrong.append(f"a batch of {len(batch)}")
            try:
                await run(batch)
            except asyncio.InvalidStateError:
                self.wrong.append("settled twice")
                raise
            if not all(entry.future.done() for entry in batch):
                self.wrong.append("never settled")

        coalescer._run = watched

    async def _call(self, step: Step) -> None:
        call = Call(step, token=len(self.calls), start=next(self.ticks))
        self.calls.append(call)
        try:
            if step.limit is None:
                call.result = await self._do(call)
            else:
                async with deadline.limit(step.limit):
                    call.result = await self._do(call)
        except DuplicateKeyError:
            call.duplicate = True
        except asyncio.CancelledError:
            call.unknown = True
            if step.cancel is None:
                self.wrong.append(f"{step.kind} was cancelled by nobody")
        except PoolError:
            call.never = True
        except (DeadlineExceeded, ExecutionTimeout) as error:
            call.unknown = True
            if step.limit is None:
                self.wrong.append(f"{step.kind} has no deadline: {error!r}")
        except PyMongoError as error:
            call.unknown = True
            if not self.faulty and step.limit is None:
                self.wrong.append(f"{step.kind}: {error!r}")
        if not call.unknown:
            call.end = next(self.ticks)

    async def _do(self, call: Call) -> Any:
        step = call.step
        if step.kind in self.readers:
            return self._token(call, await self.readers[step.kind].get(step.key))
        match step.kind:
            case "find_one":
                return self._token(call, await self.collection.find_one({"_id": step.key}))
            case "insert":
                await self.writer.insert({"_id": step.key, "token": call.token})
            case "insert_new":
                await self.writer.insert({"token": call.token})
            case "insert_one":
                await self.collection.insert_one({"_id": step.key, "token": call.token})
            case "update_one":
                updated = await self.collection.update_one({"_id": step.key}, {"$set": {"token": call.token}})
                return updated.matched_count
            case "delete_one":
                return (await self.collection.delete_one({"_id": step.key})).deleted_count
        return None

    def _token(self, call: Call, document: dict[str, Any] | None) -> int | None:
        if document is None:
            return None
        if "mine" in document:
            self.wrong.append("another caller's document")
        document["mine"] = call.token
        return int(document["token"])

    async def _afterwards(self, name: str) -> None:
        for same in {call.step.same for call in self.calls}:
            await self._call(Step("find_one", SAME_KEYS[same][0], same))
            history = [call for call in self.calls if call.step.same == same and call.step.kind != "insert_new"]
            if not linearizable(history):
                self.wrong.append("no order explains\n" + "\n".join(map(str, history)))
        for call in self.calls:
            if call.step.kind == "insert_new":
                count = await self.collection.count_documents({"token": call.token})
                if count > (not call.never) or (not count and not call.never and not call.unknown):
                    self.wrong.append(f"{count} times: {call}")
        rows = [row for row in self.sluice.snapshot().coalescers if row.collection == name]
        self.wrong += [f"{row}" for row in rows if not at_rest(row)]


def at_rest(row: CoalescerStats) -> bool:
    return (
        (row.in_flight, row.waiting) == (0, 0) and row.batches <= row.operations and row.batch_size.count == row.batches
    )


def after(call: Call, state: int | None) -> list[int | None]:
    """The key's state after this call took place in this one; empty if it can't have."""
    kind = call.step.kind
    if kind in READS:
        return [state] if call.result == state else []
    if kind in ("insert", "insert_one"):
        if call.unknown:
            return [call.token if state is None else state]
        if call.duplicate != (state is not None):
            return []
        return [state if call.duplicate else call.token]
    affected = int(state is not None)
    if not call.unknown and call.result != affected:
        return []
    return [call.token if affected and kind == "update_one" else None]


def linearizable(history: list[Call]) -> bool:
    """Whether the calls on one key can have taken place one after the other, each between its start and its end."""
    calls = [call for call in history if not call.never and not (call.unknown and call.step.kind in READS)]
    required = sum(1 << number for number, call in enumerate(calls) if not call.unknown)

    @cache
    def possible(left: int, state: int | None) -> bool:
        if not left & required:
            return True
        first_end = min(call.end for number, call in enumerate(calls) if left >> number & 1)
        return any(
            possible(left & ~(1 << number), next_state)
            for number, call in enumerate(calls)
            if left >> number & 1 and call.start < first_end
            for next_state in after(call, state)
        )

    return possible((1 << len(calls)) - 1, None)


@pytest.fixture
def run(options: Options, tmp_path: Path, replica_set: ReplicaSet) -> Iterator[Callable[[Program], None]]:
    """Runs one program after the other on one `Sluice`, with a pool that is easily full."""
    with asyncio.Runner() as runner, replica_set.direct(replica_set.primary()) as admin:

        async def opened() -> Sluice:
            codec = {"uuidRepresentation": "standard"}
            small = replace(options, max_pool_size=3, wait_queue_multiple=4, wait_queue_timeout=0.5, client=codec)
            sluice = Sluice(small, Slot.claim(tmp_path))
            await sluice.open()
            await until(lambda: sluice.ready)
            return sluice

        world = World(sluice := runner.run(opened()), admin)
        yield lambda program: runner.run(world.run(program))
        runner.run(sluice.close())
        admin.drop_database(options.database)


def test_no_program_tells_coalesced_calls_from_single_ones(run: Callable[[Program], None]) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],  # what fails depends on the time, too: shrinking would mislead
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(programs())
    def check(program: Program) -> None:
        run(program)

    check()
