"""What asks a program to end (Ctrl-C, a closed terminal, `kill`): as an exception, or only when the time is right."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_them() -> None:
    """Each as `KeyboardInterrupt`; what is ignored (`nohup`) stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)


def ignore_them() -> None:
    """From now on, for what must come to its end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
