"""What a process does before it serves: its settings are read and checked, and its logs go where those say."""

from __future__ import annotations

from app.observe import logs
from app.settings.model import Settings
from app.settings.startup import check, current, warn


def begin() -> Settings:
    """The process's settings, with logs set up. Wrong ones end the process in one line."""
    settings = current()
    check(settings)
    logs.set_up(settings)
    warn()
    return settings
