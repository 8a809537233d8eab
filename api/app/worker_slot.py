"""The slot of this process: claimed when first asked for, so never by a master that only forks."""

from __future__ import annotations

import os
from pathlib import Path

from sluice.slots import Slot

_slot: Slot | None = None


def claim(directory: Path) -> Slot:
    """The slot that this process holds, claimed now if it has none. Raises `OSError` as `Slot.claim` does."""
    global _slot
    if _slot is None:
        _slot = Slot.claim(directory)
    return _slot


def number() -> int | None:
    """The number of the slot that this process holds."""
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
