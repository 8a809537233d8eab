"""`GET /connection-stats`: what the pools of all workers do; any worker answers for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, Field, create_model
from pydantic_core import to_json

from app.observe.single_flight import SingleFlight
from sluice.client import Sluice
from sluice.statistics.figures import figures
from sluice.statistics.histogram import Histogram
from sluice.statistics.slots import read_all
from sluice.statistics.snapshot import CoalescerStats, MemberStatus, PoolConfig, PoolStats, WorkerSnapshot
from sluice.statistics.summary import ContainerSummary, Distribution, MemberSummary, as_json, summarize

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

router = APIRouter(tags=["statistics"])

STALE = 10.0
"""Seconds after which a worker's figures are old; they are published every second."""

Completeness = Literal["complete", "incomplete"]
Fields = dict[str, Any]


def _fields(*tables: type[DataclassInstance]) -> Fields:
    """A response model's fields for the figures that these tables publish, in their order."""
    return {
        figure.name: (
            _Distribution if (kind := types[figure.name]) is Histogram else kind,
            Field(description=figure.description + (" Only grows." if figure.grows else "")),
        )
        for table in tables
        for types in [get_type_hints(table)]
        for figure in figures(table)
        if figure.in_json
    }


def _model(name: str, about: str, fields: Fields) -> type[BaseModel]:
    model: type[BaseModel] = create_model(name, __doc__=about, **fields)
    return model


def _first(names: tuple[str, ...], fields: Fields) -> Fields:
    """These, taken out of the others."""
    return {name: fields.pop(name) for name in names}


_Distribution = _model("Distribution", "How long something took.", _fields(Distribution))
_pool, _config = _fields(PoolStats), _fields(PoolConfig)
_members = _model("MemberPools", "One member's pools, over all workers.", _fields(MemberSummary, PoolStats))
_workers = _model("WorkerPools", "One worker, and its pools, over all members.", _fields(WorkerSnapshot, PoolStats))
_coalescing = _model("Coalescing", "Reads or writes of one collection that travel in batches.", _fields(CoalescerStats))
_server_view = _model(
    "MemberView", "What a member says of itself; null where it can't be asked.", _fields(MemberStatus)
)

# What it has always begun with, to the letter; all else was added beside.
_PoolConfig = _model(
    "PoolConfig", "Each pool's limits.", _first(("max_pool_size", "min_pool_size", "max_idle_time_ms"), _config)
)
_Stats = _model(
    "ConnectionPoolStats",
    "The sums over all workers and members, and what they are made of.",
    {
        **_first(("current_connections", "available_connections", "total_created", "active_connections"), _pool),
        "pool_config": (_PoolConfig, Field(description="The limits of each pool, as the settings have them.")),
        **_config,
        **_pool,
        "driver": (str, Field(description="The driver in use: pymongo or motor.")),
        "members": (list[_members], Field(description="The same figures for each member.")),  # type: ignore[valid-type]
        "workers": (list[_workers], Field(description="The same figures for each worker that lives.")),  # type: ignore[valid-type]
        "coalescing": (list[_coalescing], Field(description="For each collection and kind.")),  # type: ignore[valid-type]
        "server_view": (list[_server_view], Field(description="Everybody's connections, as each member sees them.")),  # type: ignore[valid-type]
        "statistics": (
            Completeness,
            Field(description="Incomplete while some worker can't publish its figures, or stands still."),
        ),
    },
)
_Answer = _model(
    "ConnectionStats",
    "The connection pools, over all workers of the container.",
    {
        "success": (Literal[True], Field(description="Always true.")),
        "connection_pool_stats": (_Stats, Field(description="All figures.")),
    },
)


@router.get("/connection-stats", response_model=_Answer)
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


def completeness(app: FastAPI, summary: ContainerSummary) -> Completeness:
    """Whether the figures are everybody's: `STATS_DIR` may be full, or away."""
    stale = any(worker.age_seconds > STALE for worker in summary.workers)
    whole = app.state.sluice.published and app.state.http_figures.check() and not stale
    return "complete" if whole else "incomplete"


async def _stats(app: FastAPI) -> bytes:
    summary = summarize(await everyone(app.state.sluice))
    return body(summary, completeness(app, summary))


def body(summary: ContainerSummary, statistics: Completeness) -> bytes:
    """The answer, in the order of its model."""
    first = summary.workers[0]
    config = as_json(first.pool_config)
    found: dict[str, object] = {
        **as_json(summary.pool),
        **config,
        "pool_config": {name: config[name] for name in _PoolConfig.model_fields},
        "driver": first.driver,
        "members": [as_json(member) | as_json(member.pool) for member in summary.members],
        "workers": [as_json(worker) | as_json(worker.pool) for worker in summary.workers],
        "coalescing": [as_json(coalescer) for coalescer in summary.coalescing],
        "server_view": [as_json(status) for status in summary.server_view],
        "statistics": statistics,
    }
    ordered = {name: found[name] for name in _Stats.model_fields}
    return to_json({"success": True, "connection_pool_stats": ordered})
