"""What a drill is: a failure, the load that it meets, and what is allowed to come of it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from drill.load import Load
from drill.service import Service

Fault = Callable[[Service, Load], Awaitable[None]]


@dataclass(frozen=True)
class Bounds:
    """What is missed is reported. Lost or invented writes, wrong answers, duplicates and statuses 500 are never
    allowed."""

    failed: int | None = None
    """Requests; None: as many as it takes."""
    absent_reads: float = math.inf
    """Seconds, as are the next three."""
    absent_writes: float = math.inf
    recovered: float = math.inf
    live: float = 0.1
    """Seconds that liveness may take."""
    counted: Mapping[str, float] = field(default_factory=dict)
    """What a drill counts of its own may be at most this."""
    least: Mapping[str, float] = field(default_factory=dict)
    """And others at least this: less, and nothing was tried."""
    flat: Mapping[str, float] = field(default_factory=dict)
    """How many times the median of its first third the median of a series' last third may be."""
    unseen: int | None = 0
    """How often liveness, and how often the metrics, may get no answer, as it's the asked that is killed; None: any
    number of times."""


STARTING = 0.5
"""Seconds that liveness may take where workers start, who need a processor for themselves."""
PLANNED = Bounds(failed=0, absent_reads=1, absent_writes=1, recovered=10, live=STARTING)
"""What somebody ordered may cost nobody anything."""


@dataclass(frozen=True)
class Drill:
    """`fault` returns once what it broke is mended. `quick`: among those that the tests run."""

    name: str
    about: str
    fault: Fault
    bounds: Bounds = field(default_factory=Bounds)
    callers: int = 64
    rate: float = 400.0
    settings: Mapping[str, str] = field(default_factory=dict)
    alerts: frozenset[str] = frozenset()
    """Those that may come up: what they say is so."""
    quick: bool = False
    isolated: bool = False
    """It needs a network or file systems of its own."""
    keeps_connections: bool = True
    """Without, each request has a connection of its own."""
    arriving: float = 0.0
    """Seconds over which the callers come."""
    expects_failures: bool = False
    """The load itself is more than fits: it begins when the fault does, and ends with it."""
