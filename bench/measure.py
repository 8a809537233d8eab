"""Measuring: callers that repeat an operation, and what is said about their latencies (milliseconds)."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence

Figures = dict[str, float]
Call = Callable[[], Awaitable[object]]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered ones don't exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latencies(seconds: Sequence[float], prefix: str = "") -> Figures:
    """p50, p99, p99.9 and the longest, in milliseconds; nothing for no measurement."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
    found = {f"{prefix}{name}": percentile(ordered, share) for name, share in shares.items()}
    return {name: 1000 * value for name, value in {**found, f"{prefix}max": ordered[-1]}.items()}


async def drive(call: Call, callers: int, seconds: float) -> list[array[float]]:
    """Let so many tasks repeat the call for so long; each one's latencies in seconds. Raises what a call raises."""
    taken = [array("d") for _ in range(callers)]
    until = time.perf_counter() + seconds

    async def caller(own: array[float]) -> None:
        now = time.perf_counter()
        while now < until:
            await call()
            done = time.perf_counter()
            own.append(done - now)
            now = done

    async with asyncio.TaskGroup() as tasks:
        for own in taken:
            tasks.create_task(caller(own))
    return taken


async def closed_loop(call: Call, callers: int, seconds: float) -> Figures:
    """Throughput (operations per second) and latencies of so many callers, after a short warm-up."""
    await drive(call, callers, min(0.25, seconds))
    started = time.perf_counter()
    taken = await drive(call, callers, seconds)
    elapsed = time.perf_counter() - started
    every = [latency for own in taken for latency in own]
    return {"rate": len(every) / elapsed, **latencies(every)}
