"""Containers of the API that really run: more than API_CONTAINERS says, where somebody has scaled by hand."""

from __future__ import annotations

import logging
import socket

from app.settings.model import Settings
from sluice import Demand

log = logging.getLogger(__name__)


def warn_of_more(settings: Settings) -> None:
    """Say so if CONNECTION_BUDGET doesn't fit those that there are; one that starts can't know who should go."""
    if settings.connection_budget is None or settings.api_name is None:
        return
    found = addresses(settings.api_name)
    demand = Demand(found, settings.workers, settings.max_pool_size)
    if found > settings.api_containers and demand.connections > settings.connection_budget:
        log.warning(
            "connection pool: CONNECTION_BUDGET=%d is for API_CONTAINERS=%d, and more run: %s",
            settings.connection_budget,
            settings.api_containers,
            demand,
        )


def addresses(name: str) -> int:
    """How many IPv4 addresses are behind a name; 0 if it leads nowhere."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return 0
    return len({address for *_, (address, *_) in found})
