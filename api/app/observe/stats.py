"""`GET /connection-stats`: what the pools of all workers do; any worker answers for all of them."""

from __future__ import annotations

import asyncio
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, Field, create_model
from pydantic_core import to_json

from app.observe import metric_values
from app.observe.single_flight import SingleFlight
from sluice import Driver, Sluice, statistics

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

router = APIRouter(tags=["statistics"])

STALE = 10.0
"""Seconds after which a worker's figures are old; they are published every second."""

Completeness = Literal["complete", "incomplete"]
Fields = dict[str, Any]


def _described(kind: Any, text: str) -> tuple[Any, Any]:
    return kind, Field(description=text)


def _list(model: type[BaseModel], text: str) -> tuple[Any, Any]:
    return _described(GenericAlias(list, (model,)), text)


def _fields(*tables: type[DataclassInstance]) -> Fields:
    """A response model's fields for the figures that these tables publish, in their order."""
    return {
        figure.name: _described(
            _Distribution if types[figure.name] is statistics.Histogram else types[figure.name],
            figure.description + (" Only grows." if figure.grows else ""),
        )
        for table in tables
        for types in [get_type_hints(table)]
        for figure in statistics.figures_of(table)
        if figure.in_json
    }


def _first(names: tuple[str, ...], fields: Fields) -> Fields:
    """These, taken out of the others."""
    return {name: fields.pop(name) for name in names}


def _model(name: str, about: str, fields: Fields) -> type[BaseModel]:
    model: type[BaseModel] = create_model(name, __doc__=about, **fields)
    return model


_Distribution = _model("Distribution", "How long something took.", _fields(statistics.Distribution))
_Member = _model(
    "MemberPools", "One member's pools, over all workers.", _fields(statistics.MemberSummary, statistics.PoolStats)
)
_Worker = _model(
    "WorkerPools",
    "One worker, and its pools, over all members.",
    _fields(statistics.WorkerSnapshot, statistics.PoolStats),
)
_Coalescing = _model(
    "Coalescing", "Reads or writes of one collection that travel in batches.", _fields(statistics.CoalescerStats)
)
_View = _model(
    "MemberView", "What a member reports of itself; null where it can't be asked.", _fields(statistics.MemberStatus)
)

# What it has always begun with, to the letter; all else was added beside.
_pool, _config = _fields(statistics.PoolStats), _fields(statistics.PoolConfig)
_Config = _model(
    "PoolConfig", "The limits of each pool.", _first(("max_pool_size", "min_pool_size", "max_idle_time_ms"), _config)
)
_Stats = _model(
    "ConnectionPoolStats",
    "The sums over all workers and members, and what they are made of.",
    {
        **_first(("current_connections", "available_connections", "total_created", "active_connections"), _pool),
        "pool_config": _described(_Config, "The limits of each pool, as the settings have them."),
        **_config,
        **_pool,
        "driver": _described(Driver, "The driver in use."),
        "members": _list(_Member, "The same figures for each member."),
        "workers": _list(_Worker, "The same figures for each live worker."),
        "coalescing": _list(_Coalescing, "Coalesced reads and writes, by collection."),
        "server_view": _list(_View, "Each member's own view, of all its clients."),
        "statistics": _described(
            Completeness, "Incomplete while some worker can't publish its figures, or its event loop is blocked."
        ),
    },
)
_Answer = _model(
    "ConnectionStats",
    "The connection pools, over all workers of the container.",
    {"success": _described(Literal[True], "Always true."), "connection_pool_stats": _described(_Stats, "The figures.")},
)


@router.get("/connection-stats", name="pools", response_model=_Answer)
async def connection_stats(request: Request) -> Response:
    """The connection pools: sums over all workers, then per member and per worker, and the members' own view."""
    return Response(await request.app.state.stats.get(), media_type="application/json")


def install(app: FastAPI, cache_seconds: float) -> None:
    """Serve the app's statistics; a burst of calls costs one."""
    app.state.stats = SingleFlight(lambda: _stats(app), cache_seconds)


async def everyone(sluice: Sluice) -> list[statistics.WorkerSnapshot]:
    """Every slot's snapshot, as published: so that whichever worker answers, what only grows never shrinks.

    This worker is always among them: where it can't publish, or its slot was deleted, it at least knows of itself.
    """
    sluice.publish()
    published = await asyncio.to_thread(statistics.read_all, sluice.slot.directory)
    own = sluice.snapshot()
    if sluice.published and any(snapshot.alive and snapshot.worker == own.worker for snapshot in published):
        return published
    return [own, *(snapshot for snapshot in published if snapshot.worker != own.worker)]


def completeness(app: FastAPI, summary: statistics.ContainerSummary) -> Completeness:
    """Whether the figures cover every worker: `STATS_DIR` may be full, or gone."""
    stale = any(worker.age_seconds > STALE for worker in summary.workers)
    whole = app.state.sluice.published and metric_values.complete() and not stale
    return "complete" if whole else "incomplete"


async def _stats(app: FastAPI) -> bytes:
    summary = statistics.summarize(await everyone(app.state.sluice))
    return body(summary, completeness(app, summary))


def body(summary: statistics.ContainerSummary, complete: Completeness) -> bytes:
    """The answer, in the order of its model."""
    first = summary.workers[0]
    config = statistics.as_json(first.pool_config)
    found: dict[str, object] = {
        **statistics.as_json(summary.pool),
        **config,
        "pool_config": {name: config[name] for name in _Config.model_fields},
        "driver": first.driver,
        "members": [statistics.as_json(member) | statistics.as_json(member.pool) for member in summary.members],
        "workers": [statistics.as_json(worker) | statistics.as_json(worker.pool) for worker in summary.workers],
        "coalescing": [statistics.as_json(coalescer) for coalescer in summary.coalescing],
        "server_view": [statistics.as_json(status) for status in summary.server_view],
        "statistics": complete,
    }
    ordered = {name: found[name] for name in _Stats.model_fields}
    return to_json({"success": True, "connection_pool_stats": ordered})
