"""All drills, by name."""

from __future__ import annotations

from drill import excess, members, network, repeats, resources, soak, workers
from drill.drills import Drill

_ALL = (
    *members.DRILLS,
    *network.DRILLS,
    *workers.DRILLS,
    *repeats.DRILLS,
    *resources.DRILLS,
    *excess.DRILLS,
    *soak.DRILLS,
)
DRILLS: dict[str, Drill] = {drill.name: drill for drill in _ALL}
QUICK = [drill.name for drill in DRILLS.values() if drill.quick]
