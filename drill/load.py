"""Callers of every kind of request at once, who remember what they were told."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal

import aiohttp

from drill.ledger import Ledger

Kind = Literal["read", "write"]
Series = dict[str, list[tuple[float, float]]]
"""By what it is: seconds, and the value then."""
NO_CONNECTION = 0
"""The status of a request that got no answer."""
PATIENCE = 30.0
"""Seconds that a caller waits for an answer: longer than the service's own limit."""
BULK = 5
LIMIT = 10
"""Users of a list."""


@dataclass(frozen=True)
class Record:
    """One request: when it began (seconds, monotonic), how long it took, and its status."""

    kind: Kind
    operation: str
    began: float
    seconds: float
    status: int
    good: bool

    @property
    def ended(self) -> float:
        return self.began + self.seconds


@dataclass
class Load:
    """`callers` who together ask `rate` times a second, as long as nobody has to wait; a context manager."""

    url: str
    callers: int = 64
    rate: float = 400.0
    mix: Mapping[str, int] = field(
        default_factory=lambda: {"read": 60, "list": 5, "create": 20, "bulk": 3, "update": 9, "delete": 3}
    )
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = PATIENCE
    keeps_connections: bool = True
    arriving: float = 0.0
    """Seconds over which they come, one after the other."""
    ledger: Ledger = field(default_factory=Ledger)
    records: list[Record] = field(default_factory=list)
    others: Counter[int] = field(default_factory=Counter)
    """What a drill's own requests were answered that failed, by status: of none of these callers."""
    causes: set[str] = field(default_factory=set)
    """What went wrong where there was no answer, in the client's words."""
    notes: dict[str, float] = field(default_factory=dict)
    """What a drill has counted of its own, by what it is."""
    series: Series = field(default_factory=dict)
    """What it has measured over time."""
    started: float = field(default=0.0, init=False)
    ended: float = field(default=0.0, init=False)

    async def __aenter__(self) -> Load:
        self.started = time.monotonic()
        connector = (
            aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
            if self.keeps_connections
            else aiohttp.TCPConnector(limit=0, force_close=True)
        )
        self._http = aiohttp.ClientSession(
            self.url, connector=connector, timeout=aiohttp.ClientTimeout(total=self.patience), headers=self.headers
        )
        self._over = asyncio.Event()
        comes = self.arriving / max(1, self.callers)
        self._tasks = [asyncio.create_task(self._call(number * comes)) for number in range(self.callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Whoever waits for an answer gets it first."""
        self._over.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            self.ended = time.monotonic()
            await self._http.close()

    async def steady(self, seconds: float, limit: float) -> bool:
        """Wait until nothing has failed for so long; False where it doesn't come to that within the limit."""
        start = time.monotonic()
        while time.monotonic() < start + limit:
            since = time.monotonic() - seconds
            recent = [record for record in reversed(self.records[-5_000:]) if record.ended > since]
            if since > start and recent and all(record.good for record in recent):
                return True
            await asyncio.sleep(0.1)
        return False

    def p99(self, start: float, end: float, *, good: bool = False) -> float:
        """Seconds that 99 % of the requests (`good`: of those that succeeded) that began then took at most; 0 without
        any."""
        later = takewhile(lambda record: record.ended >= start, reversed(self.records))  # they are as they ended
        taken = sorted(record.seconds for record in later if start <= record.began < end and record.good >= good)
        return taken[int(0.99 * len(taken))] if taken else 0.0

    # Requests

    async def _call(self, later: float) -> None:
        await asyncio.sleep(later)
        kinds, weights = list(self.mix), list(self.mix.values())
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "read": self._read, "list": self._list, "create": self._create, "bulk": self._bulk,
            "update": self._update, "delete": self._delete,
        }  # fmt: skip
        while not self._over.is_set():
            pause = random.expovariate(self.rate / self.callers)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), pause)
                return
            await ways[random.choices(kinds, weights)[0]]()

    async def _send(
        self, kind: Kind, operation: str, method: str, path: str, good: tuple[int, ...], **options: Any
    ) -> tuple[int, Any]:
        """The status and what was answered; `NO_CONNECTION` where nothing was, or what nobody understands."""
        began = time.monotonic()
        status, body = NO_CONNECTION, b""
        try:
            async with self._http.request(method, path, **options) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            self.causes.add(f"{operation}: {type(error).__name__}: {error}")
            status = NO_CONNECTION
        answer = understood(status, body)
        clear = answer is not None or not 200 <= status < 300
        self.records.append(Record(kind, operation, began, time.monotonic() - began, status, clear and status in good))
        if not clear:
            self.ledger.wrong.append(f"{operation}: {status} with {body[:80]!r}")
            status = NO_CONNECTION
        return status, answer

    async def _read(self) -> None:
        entry = self.ledger.one()
        if entry is None:
            return
        since = self.ledger.moment
        status, answer = await self._send("read", "read", "GET", f"/users/{entry.id}", (200, 404))
        if status in (200, 404):
            self.ledger.read(entry, since, answer if status == 200 else None)
        elif not in_doubt(status):
            self.ledger.wrong.append(f"asked for {entry.id}, the answer is {status}")

    async def _list(self) -> None:
        newest_first = random.random() < 0.5
        since, order = self.ledger.moment, "&sort=-created_at" if newest_first else ""
        status, answer = await self._send("read", "list", "GET", f"/users?limit={LIMIT}{order}", (200,))
        if status == 200:
            self.ledger.listed(since, answer, limit=LIMIT, newest_first=newest_first)
        elif not in_doubt(status):
            self.ledger.wrong.append(f"asked for a list, the answer is {status}")

    async def _create(self) -> None:
        new = person()
        self.ledger.asked(new)
        status, answer = await self._send("write", "create", "POST", "/users", (201,), json=new)
        self._note_create(new, status, answer)

    async def _bulk(self) -> None:
        new = [person() for _ in range(BULK)]
        for each in new:
            self.ledger.asked(each)
        status, answer = await self._send("write", "bulk", "POST", "/users/bulk", (201,), json={"users": new})
        if status not in (201, 207):
            for each in new:
                self._note_create(each, status, answer)
            return
        items = answer.get("items")
        if not isinstance(items, list) or len(items) != BULK:
            number = len(items) if isinstance(items, list) else 0
            self.ledger.wrong.append(f"a bulk create of {BULK} was answered for {number}")
            for each in new:
                self.ledger.unanswered(each)
            return
        for index, item in enumerate(items):
            if item.get("index") != index:
                self.ledger.wrong.append(f"a bulk create's item {index} is said to be {item.get('index')}")
            self._note_create(new[index], item.get("status", NO_CONNECTION), item, whole=False)

    def _note_create(self, new: Mapping[str, Any], status: int, answer: Any, *, whole: bool = True) -> None:
        if status == 201:
            self.ledger.created(new, answer, whole=whole)
        elif in_doubt(status):
            self.ledger.unanswered(new)
        else:
            self.ledger.refused(new["email"], f"{status}")

    async def _update(self) -> None:
        entry = self.ledger.take()
        if entry is None:
            return
        change = {"age": random.randrange(100)}
        self.ledger.changing(entry, change)
        match = {"If-Match": f'"{entry.version}"'}
        status, answer = await self._send(
            "write", "update", "PATCH", f"/users/{entry.id}", (200,), json=change, headers=match
        )
        if status == 200:
            self.ledger.changed(entry, answer)
        elif in_doubt(status):
            self.ledger.changed(entry, None)
        else:
            self.ledger.unchanged(entry, "change", status)

    async def _delete(self) -> None:
        entry = self.ledger.take()
        if entry is None:
            return
        entry.deleting = True
        status, _ = await self._send("write", "delete", "DELETE", f"/users/{entry.id}", (204,))
        if status == 204 or in_doubt(status):
            self.ledger.removed(entry, known=status == 204)
        else:
            self.ledger.unchanged(entry, "deletion", status)


def understood(status: int, body: bytes) -> Any:
    """The object that a success was answered with, nothing for a 204; None where there's none."""
    if status == 204:
        return {} if not body else None
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def in_doubt(status: int) -> bool:
    """Whether a write may have happened. What remains blames the caller, and these callers make no mistakes."""
    return status == NO_CONNECTION or status >= 500


def person() -> dict[str, Any]:
    """A user to create, whose name nobody else has."""
    token = uuid.uuid4().hex
    return {"email": f"{token}@example.org", "name": token, "age": 36, "city": "London", "tags": ["drill"]}
