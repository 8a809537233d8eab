"""Where the tests of this folder find the service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KEY = "schluessel"


@dataclass(frozen=True)
class Service:
    """Its driver, its addresses through nginx and past it, and what its workers log."""

    driver: str
    through: str
    past: str
    log: Path
