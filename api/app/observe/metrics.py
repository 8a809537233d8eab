"""`/metrics`, for Prometheus: pools from `sluice`, and what is counted by prometheus_client, here or in a resource."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from app.observe.metric_files import AllSlots
from app.observe.single_flight import SingleFlight
from app.observe.worker_slot import METRICS
from app.settings.model import Settings
from sluice import SluiceCollector, statistics

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Every worker's figures, from any worker."""
    return Response(await request.app.state.metrics.get(), media_type=CONTENT_TYPE_LATEST)


def install(app: FastAPI, settings: Settings) -> None:
    """Serve every worker's metrics; a burst of scrapes costs one."""
    app.state.metrics = SingleFlight(lambda: asyncio.to_thread(_render, settings), settings.stats_cache_ms / 1000)


def _render(settings: Settings) -> bytes:
    unowned = {worker.worker for worker in statistics.read_all(settings.stats_dir) if not worker.alive}
    registry = CollectorRegistry()
    registry.register(AllSlots(settings.stats_dir / METRICS, unowned))
    registry.register(
        SluiceCollector(
            settings.stats_dir, settings.database_name, demand=settings.demand, budget=settings.connection_budget
        )
    )
    return generate_latest(registry)


class _Taken(Collector):
    """Makes a metric of an application's that has the name of one of `sluice`'s fail where it is defined."""

    def describe(self) -> Iterable[Metric]:
        return [Metric(name, "One of sluice's.", "unknown") for name in statistics.metric_names()]

    def collect(self) -> Iterable[Metric]:
        return []


REGISTRY.register(_Taken())
