"""An open-loop load: requests leave by a schedule, whatever becomes of those before them.

A process of its own: `python -m bench.openloop` reads an `Order` as JSON and writes what happened as JSON. Latencies
count from the scheduled time, so that a stalled server's requests are as late as their callers would find them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import subprocess
import sys
import time
from array import array
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.measure import Figures, latencies, percentile

CONNECTIONS = 4_000
"""At most; further requests wait for one, and that counts as their latency."""
TICK = 0.001
PATIENCE = 3.0
"""Seconds that the last requests get after the last one has left."""


@dataclass
class Order:
    """`rate` arrivals per second (Poisson) for `seconds`, after `warm_up` seconds that don't count."""

    url: str
    paths: list[str]
    rate: float
    seconds: float
    warm_up: float


def run(order: Order) -> Figures:
    """Run it in its process. Raises `RuntimeError` when that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.openloop"],
        input=json.dumps(asdict(order)),
        capture_output=True,
        text=True,
        timeout=order.seconds + order.warm_up + PATIENCE + 30,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the open-loop load failed: {done.stderr[-1000:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


class Load:
    """An order that is carried out, on one event loop."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.idle: list[_Connection] = []
        self.queue: deque[float] = deque()
        self.opened = 0
        self.connecting: set[asyncio.Task[None]] = set()
        self.lags = array("d")
        self.answers: list[tuple[float, float, int]] = []  # scheduled, answered, status (0: broken)
        address = urlsplit(order.url)
        self.host, self.port = str(address.hostname), address.port or 80
        head = f" HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n"
        self.requests = [f"GET {path}{head}".encode() for path in order.paths]

    async def run(self) -> Figures:
        """Rates are per second, latencies in milliseconds; `status_…`: neither 2xx nor refused."""
        start = time.monotonic() + 0.2
        first, end = start + self.order.warm_up, start + self.order.warm_up + self.order.seconds
        scheduled, sent = start, 0
        while scheduled < end:
            now = time.monotonic()
            while scheduled <= now and scheduled < end:
                self.lags.append(now - scheduled)
                self.send(scheduled)
                sent += 1
                scheduled += random.expovariate(self.order.rate)
            await asyncio.sleep(TICK)
        limit = time.monotonic() + PATIENCE
        while len(self.answers) < sent and time.monotonic() < limit:
            await asyncio.sleep(0.01)
        return self._figures(first, end, sent)

    def send(self, scheduled: float) -> None:
        """On an idle connection, a new one, or as soon as there is one."""
        if self.idle:
            self.idle.pop().send(scheduled)
            return
        self.queue.append(scheduled)
        if self.opened < CONNECTIONS:
            self.opened += 1
            self.connecting.add(task := asyncio.create_task(self._connect()))
            task.add_done_callback(self.connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Connection(self), self.host, self.port)
        except OSError:
            self.opened -= 1
            if self.queue:
                self.answers.append((self.queue.popleft(), time.monotonic(), 0))

    def free(self, connection: _Connection) -> None:
        if self.queue:
            connection.send(self.queue.popleft())
        else:
            self.idle.append(connection)

    def _figures(self, first: float, end: float, sent: int) -> Figures:
        counted = [answer for answer in self.answers if answer[0] >= first]
        served = [answered - scheduled for scheduled, answered, status in counted if 200 <= status < 300]
        refused = [answered - scheduled for scheduled, answered, status in counted if status in (429, 503)]
        others = Counter(status for _, _, status in counted if not (200 <= status < 300 or status in (429, 503)))
        within = sum(first <= answered < end and 200 <= status < 300 for _, answered, status in self.answers)
        return {
            "offered": self.order.rate,
            "goodput": within / self.order.seconds,
            "refusals": len(refused) / self.order.seconds,
            "broken": others.total(),
            **{f"status_{status}": count for status, count in others.items()},
            "unanswered": sent - len(self.answers),
            "lag_p99": 1000 * percentile(sorted(self.lags), 0.99),
            **latencies(served),
            **latencies(refused, "refused_"),
        }


class _Connection(asyncio.Protocol):
    """Keep-alive, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._data = b""
        self._scheduled: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._load.free(self)

    def send(self, scheduled: float) -> None:
        self._scheduled = scheduled
        self._transport.write(random.choice(self._load.requests))

    def data_received(self, data: bytes) -> None:
        data = self._data = self._data + data if self._data else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return
        lowered = data[:head].lower()
        where = lowered.find(b"\r\ncontent-length:")
        if where >= 0:
            complete = len(data) >= head + 4 + int(lowered[where + 17 :].split(b"\r\n", 1)[0])
        else:
            complete = data.endswith(b"0\r\n\r\n")  # chunked
        if complete:
            self._data = b""
            self._done(int(data[9:12]))
            if b"\r\nconnection: close" in lowered:
                self._transport.close()
            else:
                self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.opened -= 1
        if self in self._load.idle:
            self._load.idle.remove(self)
        self._done(0)

    def _done(self, status: int) -> None:
        if self._scheduled is not None:
            self._load.answers.append((self._scheduled, time.monotonic(), status))
            self._scheduled = None


def main() -> None:
    order = Order(**json.load(sys.stdin))
    gc.disable()  # its pauses would look like the server's
    print(json.dumps(uvloop.run(Load(order).run())))


if __name__ == "__main__":
    main()
