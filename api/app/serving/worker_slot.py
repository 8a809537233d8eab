"""The slot of this process: claimed when first asked for, so never by a master that only forks."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from sluice import Slot

log = logging.getLogger(__name__)

_slot: Slot | None = None


def claim(directory: Path) -> Slot:
    """The slot of this process, claimed now if it has none. One that can't be had yet is no reason not to serve."""
    global _slot
    if _slot is None:
        _slot = Slot(directory)
        try:
            _slot.hold()
        except OSError as error:
            log.error("there is no slot for this worker's statistics: %s", error)
    return _slot


def number() -> int | None:
    """The number of the slot of this process, if it has asked for one."""
    return _slot.number if _slot is not None else None


def release() -> None:
    """Give the slot back."""
    global _slot
    if _slot is not None:
        _slot.close()
        _slot = None


def _forget() -> None:
    global _slot
    _slot = None


os.register_at_fork(after_in_child=_forget)  # the slot itself lets go of its lock there
