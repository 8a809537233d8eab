"""The settings of this process: read once, by whoever starts it; wrong ones end it in one line."""

from __future__ import annotations

import logging
import sys
from typing import Any

from app.settings.errors import SettingsError
from app.settings.model import NAMES, Settings, load
from app.settings.names import near_names
from app.settings.siblings import warn_of_more

log = logging.getLogger(__name__)

_current: Settings | None = None
_refused = False
_checked = False
_warned = False


def current() -> Settings:
    """The process's settings, read once; forked workers keep their master's. Wrong ones end the process, as below."""
    return _current or refresh()


def refresh(**given: Any) -> Settings:
    """Read the settings again; what is `given` wins.

    Wrong ones end the process with one line on standard error, unless it already has right ones, which then stay.
    """
    global _current, _refused
    try:
        settings = load(**given)
        settings.check_paths()  # before logs are set up, which write there
        _current, _refused = settings, False
    except SettingsError as error:
        _complain(error)
        _refused = True
        if _current is None:
            raise SystemExit(1) from None
    return _current


def refused() -> bool:
    """Whether the settings that were read last were wrong, and older ones stay."""
    return _refused


def check(settings: Settings, *, again: bool = False) -> None:
    """`check_start` before the first worker of this process starts; ends the process as `refresh` does.

    `again` for a service that already runs: a budget that is exceeded now is only said.
    """
    global _checked
    if _checked and not again:
        return
    try:
        settings.check_start()
    except SettingsError as error:
        _complain(error)
        if not again:
            raise SystemExit(1) from None
    warn_of_more(settings)
    _checked = True


def warn() -> None:
    """Log, once for all workers, what in the environment looks like a setting and is none."""
    global _warned
    if not _warned:
        _warned = True
        for name, right in near_names(NAMES):
            log.warning("%s in the environment is no setting: %s is meant?", name, right)


def _complain(error: SettingsError) -> None:
    sys.stderr.write(f"sluice: {error}\n")
