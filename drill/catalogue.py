"""All drills, by name."""

from __future__ import annotations

from drill import excess, members, workers
from drill.drills import Drill

DRILLS: dict[str, Drill] = {drill.name: drill for drill in (*members.DRILLS, *workers.DRILLS, *excess.DRILLS)}
QUICK = [drill.name for drill in DRILLS.values() if drill.quick]
