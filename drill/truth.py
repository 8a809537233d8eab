"""Whether metrics, alerts and liveness say what is so while a drill goes on."""

from __future__ import annotations

import asyncio
import http.client
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

EVERY = 0.5
"""Seconds between two looks at the metrics and the alerts."""
LIVE_EVERY = 0.1
SETTLED = 8.0
"""Seconds after which a member that has come back says everything of itself again."""
OF_THE_PRIMARY = frozenset({"mongodb_member_replication_lag_seconds"})
"""Figures that nobody has while there is none."""
OVER_HOURS = frozenset({"ErrorBudgetBurnsSlowly", "LatencyBudgetBurnsSlowly"})
"""Alerts that look back on the drills before, too."""
LOOKS_BACK = {
    "ErrorBudgetBurnsFast": 6 * 3600.0,
    "LatencyBudgetBurnsFast": 6 * 3600.0,
    "WorkerRestarts": 900.0,
    **dict.fromkeys(("PoolTimeouts", "PoolRefusals", "BatchRefusals", "PoolConnectFailures"), 120.0),
}
"""Seconds: what they say may be what a drill before has done."""
EVALUATED = 30.0
"""Seconds until what is so is scraped and evaluated."""
GROWING = ("_total", "_count", "_sum", "_bucket")
"""What the names of figures end with that never fall, whichever workers come and go; a member's own start again."""
ROUNDING = 1 - 1e-9
"""Sums of the same numbers in another order may differ by so much."""
Labels = frozenset[tuple[str, str]]
Series = tuple[str, Labels]
PATIENCE = 5.0
"""Seconds; the service has given up most requests by then."""


@dataclass
class Witness:
    """Looks on as long as it is entered; its findings are for a table."""

    api: str
    nginx: str
    prometheus: str
    echoes: Mapping[str, float] = field(default_factory=dict)
    """By alert: when the last drill ended that might raise it (monotonic seconds)."""
    slowest_live: float = 0.0
    """Seconds that an answer of liveness took at most, asked of the API itself."""
    live_asked: int = 0
    live_failures: int = 0
    """How often it was no 200, or no answer within `PATIENCE`."""
    alerts: dict[str, str] = field(default_factory=dict)
    """Each alert that was pending or firing, and the worse of both. Those from before don't count until they end."""
    alert_looks: int = 0
    alerts_missed: int = 0
    """Looks at the alerts that got no answer."""
    shrunken: set[str] = field(default_factory=set)
    """Counters that fell."""
    holes: set[str] = field(default_factory=set)
    """Figures of members that have answered for `SETTLED` which were gone from `/metrics`, having been there."""
    looks: int = 0
    missed: int = 0
    """Looks at the metrics that got no answer."""
    _last: Mapping[Series, float] = field(default_factory=dict)
    _members: set[tuple[str, str]] = field(default_factory=set)
    _up_since: dict[str, float] = field(default_factory=dict)
    _before: frozenset[Labels] | None = None

    async def __aenter__(self) -> Witness:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        self._over = asyncio.Event()
        self.note_alerts(await self._active())
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
            self.note_alerts(await self._active())
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
        self.note_figures(text, time.monotonic())

    def note_figures(self, text: str, now: float) -> None:
        """What `/metrics` said at this time."""
        counters: dict[Series, float] = {}
        members: set[tuple[str, str]] = set()
        up: set[str] = set()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if family.name.startswith("mongodb_member_"):
                    members.add((sample.labels["member"], sample.name))
                    if sample.name == "mongodb_member_up" and sample.value:
                        up.add(sample.labels["member"])
                elif family.type in ("counter", "histogram") and sample.name.endswith(GROWING):
                    counters[sample.name, frozenset(sample.labels.items())] = sample.value
        self.shrunken |= {
            _text(series) for series, value in self._last.items() if counters.get(series, 0.0) < value * ROUNDING
        }
        self._up_since = {member: self._up_since.get(member, now) for member in up}
        settled = {member for member, since in self._up_since.items() if now - since > SETTLED}
        for member, name in self._members - members:
            if name == "mongodb_member_up" or (member in settled and name not in OF_THE_PRIMARY):
                self.holes.add(f"{name} of {member}")
        self._last = counters
        self._members |= members

    def note_alerts(self, active: Mapping[Labels, str] | None) -> None:
        """Which were active at one look, and how; None: there was no answer."""
        self.alert_looks += 1
        if active is None:
            self.alerts_missed += 1
            return
        self._before = frozenset(active if self._before is None else self._before & active.keys())
        for labels, state in active.items():
            name = dict(labels)["alertname"]
            ended = self.echoes.get(name, -math.inf)
            echo = name in OVER_HOURS or time.monotonic() - ended < LOOKS_BACK.get(name, -math.inf) + EVALUATED
            if labels not in self._before and not echo and self.alerts.get(name) != "firing":
                self.alerts[name] = state

    async def _active(self) -> dict[Labels, str] | None:
        try:
            async with self._http.get(f"{self.prometheus}/api/v1/alerts") as answer:
                alerts = (await answer.json())["data"]["alerts"]
                return {frozenset(alert["labels"].items()): alert["state"] for alert in alerts}
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError):
            return None


def _text(series: Series) -> str:
    name, labels = series
    return f"{name}{{{', '.join(f'{label}={value}' for label, value in sorted(labels))}}}"
