"""`GET /connection-stats`: what the pools of all workers do; any worker answers for all of them."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic_core import to_json

from app.observe.single_flight import SingleFlight
from sluice.client import Sluice
from sluice.statistics.slots import read_all
from sluice.statistics.snapshot import WorkerSnapshot
from sluice.statistics.summary import ContainerSummary, as_json, summarize

router = APIRouter(tags=["statistics"])

STALE = 10.0
"""Seconds after which a worker's figures are old; they are published every second."""

_ORIGINAL = ("current_connections", "available_connections", "total_created", "active_connections")
_ORIGINAL_CONFIG = ("max_pool_size", "min_pool_size", "max_idle_time_ms")
"""What `connection_pool_stats` has always begun with, and its `pool_config`; all else was added beside them."""


_EXAMPLE = {
    "success": True,
    "connection_pool_stats": {
        "current_connections": 25,
        "available_connections": 75,
        "total_created": 100,
        "active_connections": 25,
        "pool_config": {"max_pool_size": 100, "min_pool_size": 10, "max_idle_time_ms": 30000},
    },
}


@router.get("/connection-stats", responses={200: {"content": {"application/json": {"example": _EXAMPLE}}}})
async def connection_stats(request: Request) -> Response:
    """The connection pools: sums over all workers, then per member and per worker, and the members' own view."""
    return Response(await request.app.state.stats.get(), media_type="application/json")


def install(app: FastAPI, cache_seconds: float) -> None:
    """Serve the app's statistics; a burst of calls costs one."""
    app.state.stats = SingleFlight(lambda: _stats(app), cache_seconds)


async def everyone(sluice: Sluice) -> list[WorkerSnapshot]:
    """Every slot's snapshot, as published: so that whichever worker answers, what only grows never shrinks.

    This worker is always among them: where it can't publish, or its slot was deleted, it at least knows of itself.
    """
    sluice.publish()
    published = await asyncio.to_thread(read_all, sluice.slot.directory)
    own = sluice.snapshot()
    if sluice.published and any(snapshot.alive and snapshot.worker == own.worker for snapshot in published):
        return published
    return [own, *(snapshot for snapshot in published if snapshot.worker != own.worker)]


def completeness(app: FastAPI, summary: ContainerSummary) -> Literal["complete", "incomplete"]:
    """Whether the figures are everybody's: `STATS_DIR` may be full, or away."""
    stale = any(worker.age_seconds > STALE for worker in summary.workers)
    whole = app.state.sluice.published and app.state.http_figures.check() and not stale
    return "complete" if whole else "incomplete"


async def _stats(app: FastAPI) -> bytes:
    summary = summarize(await everyone(app.state.sluice))
    return body(summary, completeness(app, summary))


def body(summary: ContainerSummary, statistics: Literal["complete", "incomplete"]) -> bytes:
    pool = as_json(summary.pool)
    config = as_json(summary.workers[0].pool_config)
    limits = {name: config.pop(name) for name in _ORIGINAL_CONFIG}
    figures = {name: pool.pop(name) for name in _ORIGINAL} | {"pool_config": limits} | config | pool
    figures |= {
        "driver": summary.workers[0].driver,
        "members": [{"member": part.member} | as_json(part.pool) for part in summary.members],
        "workers": [as_json(worker) | as_json(worker.pool) for worker in summary.workers],
        "coalescing": [as_json(part) for part in summary.coalescing],
        "server_view": [as_json(part) for part in summary.server_view],
        "statistics": statistics,
    }
    return to_json({"success": True, "connection_pool_stats": figures})
