"""Health: for whoever restarts workers (`live`), whoever sends them requests (`ready`), and for people."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel

from app.http.problems import Kind, Problem, documented
from app.observe.single_flight import SingleFlight
from app.observe.stats import completeness, everyone
from sluice import Driver, Role, statistics

router = APIRouter(prefix="/health", tags=["health"])

NOT_READY = Kind("/problems/not-ready", 503, "This worker is not ready", 1)


class WorkerState(BaseModel):
    """Whether this worker runs, or can serve."""

    status: Literal["alive", "ready"]


class MemberHealth(BaseModel):
    """A member of the replica set: its role as the driver sees it, its lag in seconds as it says itself."""

    address: str
    role: Role
    lag_seconds: float | None


class PoolHealth(BaseModel):
    """Connections over all workers and members."""

    open: int
    used: int
    idle: int
    waiting: int
    available: int


class Health(BaseModel):
    """`ok`: this worker can serve and every member is there; `degraded`: something is missing; else `unavailable`.

    `reason` says why this worker can't serve, or what is missing; null when nothing is.
    `statistics` are `incomplete` while some worker can't publish its own, which costs no request.
    """

    status: Literal["ok", "degraded", "unavailable"]
    reason: str | None
    version: str
    driver: Driver
    worker: int
    workers: int
    pool: PoolHealth
    members: list[MemberHealth]
    statistics: Literal["complete", "incomplete"]


@router.get("/live", response_model=WorkerState)
async def live() -> Response:
    """The worker runs. Never asks MongoDB."""
    return Response(b'{"status":"alive"}', media_type="application/json")


@router.get("/ready", response_model=WorkerState, responses=documented(503))
async def ready(request: Request) -> Response:
    """The worker can serve: it knows a primary and its pool is open. Takes no connection."""
    sluice = request.app.state.sluice
    if not sluice.ready:
        raise Problem(NOT_READY, sluice.reason)
    return Response(b'{"status":"ready"}', media_type="application/json")


@router.get("", response_model=Health, responses={503: {"model": Health, "description": "Unavailable"}})
async def status(request: Request) -> Response:
    """How the service is: pool, members with role and lag, version."""
    body = await request.app.state.health.get()
    return Response(body.model_dump_json(), 503 if body.status == "unavailable" else 200, media_type="application/json")


def install(app: FastAPI, cache_seconds: float) -> None:
    """Serve the app's health; a burst of calls costs one."""
    app.state.health = SingleFlight(lambda: _health(app), cache_seconds)


async def _health(app: FastAPI) -> Health:
    sluice = app.state.sluice
    summary = statistics.summarize(await everyone(sluice))
    lags = {status.member: status.lag for status in summary.server_view}
    members = [
        MemberHealth(address=address, role=role, lag_seconds=lags.get(address))
        for address, role in sorted(sluice.roles().items())
    ]
    lost = [member.address for member in members if member.role == "Unknown"]
    reason = sluice.reason or (f"not reached: {', '.join(lost)}" if lost else None)
    return Health(
        status="unavailable" if not sluice.ready else "degraded" if reason else "ok",
        reason=reason,
        version=app.version,
        driver=sluice.options.driver,
        worker=sluice.slot.number,
        workers=len(summary.workers),
        pool=PoolHealth(
            open=summary.pool.current_connections,
            used=summary.pool.active_connections,
            idle=summary.pool.idle_connections,
            waiting=summary.pool.waiting,
            available=summary.pool.available_connections,
        ),
        members=members,
        statistics=completeness(app, summary),
    )
