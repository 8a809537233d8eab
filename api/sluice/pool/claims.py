"""What must reach the server though the queue is full: whatever belongs to a transaction, or ends something.

Refused, a commit or an abort leaves a transaction open, with its locks, and a `killCursors` a cursor, until the server
loses patience.
"""

from __future__ import annotations

from enum import Enum, auto


class Claim(Enum):
    """How an operation may be turned away. Whatever it is, it waits its turn."""

    ORDINARY = auto()
    """By a full queue, and after the queue's timeout."""
    BEGUN = auto()
    """Only after the timeout: it belongs to something that has begun, a transaction."""
    FINISHING = auto()
    """Not at all: what it ends would stay open on the server."""


MOMENT = 0.25
"""Seconds for what has got its connection to be sent and answered after its caller was cancelled."""
