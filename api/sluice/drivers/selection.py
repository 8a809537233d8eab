"""Server selection draws on the request's deadline.

The drivers wait for a suitable member as long as the client's setting says, and cancelling the wait is not enough:
Motor's threads can't be cancelled, and before Python 3.12 `asyncio.wait_for`, which PyMongo waits with, can lose a
cancellation (https://github.com/python/cpython/issues/86296), or leave the lock of PyMongo's topology taken for ever.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pymongo
from pymongo import _csot
from pymongo.server_description import ServerDescription

from sluice import deadline
from sluice.pool.claims import MOMENT


def within_deadline(setting: float) -> AbstractContextManager[Any]:
    """For a block that selects a server, at most for `setting` seconds; past the deadline, what tidies up has a moment,
    which is enough where one is known."""
    left = deadline.remaining()
    return nullcontext() if left is None else pymongo.timeout(min(max(left, MOMENT), setting))


def allow_for_round_trip(member: ServerDescription) -> None:
    """As the driver does when it has selected a member, but where the operation sees it: what the driver has set ended
    with `within_deadline`, or in a task of its own."""
    if _csot.get_timeout():
        _csot.set_rtt(member.min_round_trip_time)
