"""Whether metrics, alerts and liveness say what is so while a drill goes on."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

EVERY = 0.5
"""Seconds between two looks at the metrics and the alerts."""
LIVE_EVERY = 0.1
SETTLED = 3.0
"""Seconds after which a member that has come back says everything of itself again."""
OF_THE_PRIMARY = frozenset({"mongodb_member_replication_lag_seconds"})
"""Figures that nobody has while there is none."""
OVER_HOURS = frozenset({"ErrorBudgetBurnsSlowly", "LatencyBudgetBurnsSlowly"})
"""Alerts that look back on the drills before, too."""
PATIENCE = 5.0
"""Seconds; the service has given up most requests by then."""


@dataclass
class Witness:
    """Looks on as long as it is entered; its findings are for a table."""

    api: str
    nginx: str
    prometheus: str
    slowest_live: float = 0.0
    """Seconds that an answer of liveness took at most, asked of the API itself."""
    live_asked: int = 0
    live_failures: int = 0
    """How often it was no 200, or no answer within `PATIENCE`."""
    alerts: dict[str, str] = field(default_factory=dict)
    """Each alert that was pending or firing, and the worse of both."""
    shrunken: set[str] = field(default_factory=set)
    """Counters that fell."""
    holes: set[str] = field(default_factory=set)
    """Figures of members that have answered for `SETTLED` which were gone from `/metrics`, having been there."""
    looks: int = 0
    missed: int = 0
    """Looks at the metrics that got no answer."""

    async def __aenter__(self) -> Witness:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        self._over = asyncio.Event()
        self._last: Mapping[str, float] = {}
        self._members: set[tuple[str, str]] = set()
        self._up_since: dict[str, float] = {}
        self._before = set(await self._states())
        self._tasks = [
            asyncio.create_task(asyncio.to_thread(self._watch_live)),
            asyncio.create_task(self._watch_figures()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self._http.close()

    def _watch_live(self) -> None:
        """In a thread, since the loop is the callers'; on a new connection each time, as orchestrators ask."""
        address = URL(self.api)
        while not self._over.is_set():
            began = time.monotonic()
            self.live_asked += 1
            connection = http.client.HTTPConnection(address.host or "", address.port, timeout=PATIENCE)
            try:
                connection.request("GET", "/health/live")
                self.live_failures += connection.getresponse().status != 200
            except (OSError, http.client.HTTPException):
                self.live_failures += 1
            finally:
                connection.close()
            self.slowest_live = max(self.slowest_live, time.monotonic() - began)
            time.sleep(LIVE_EVERY)

    async def _watch_figures(self) -> None:
        while not self._over.is_set():
            await self._look_at_figures()
            for name, state in (await self._states()).items():
                if name not in self._before | OVER_HOURS and self.alerts.get(name) != "firing":
                    self.alerts[name] = state
            await asyncio.sleep(EVERY)

    async def _look_at_figures(self) -> None:
        self.looks += 1
        try:
            async with self._http.get(f"{self.api}/metrics") as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise ValueError(answer.status)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            self.missed += 1
            return
        counters: dict[str, float] = {}
        members: set[tuple[str, str]] = set()
        up: set[str] = set()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.name.startswith("mongodb_member_"):
                    members.add((sample.labels["member"], sample.name))
                    if sample.name == "mongodb_member_up" and sample.value:
                        up.add(sample.labels["member"])
                elif family.type == "counter" and sample.name.endswith("_total"):
                    counters[sample.name] = counters.get(sample.name, 0.0) + sample.value
        self.shrunken |= {name for name, value in self._last.items() if counters.get(name, 0.0) < value}
        now = time.monotonic()
        self._up_since = {member: self._up_since.get(member, now) for member in up}
        settled = {member for member, since in self._up_since.items() if now - since > SETTLED}
        for member, name in self._members - members:
            if name == "mongodb_member_up" or (member in settled and name not in OF_THE_PRIMARY):
                self.holes.add(f"{name} of {member}")
        self._last = counters
        self._members |= members

    async def _states(self) -> dict[str, str]:
        try:
            async with self._http.get(f"{self.prometheus}/api/v1/alerts") as answer:
                alerts = (await answer.json())["data"]["alerts"]
        except (aiohttp.ClientError, TimeoutError):
            return {}
        return {alert["labels"]["alertname"]: alert["state"] for alert in alerts}
