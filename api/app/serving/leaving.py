"""How a worker leaves: nobody who talks to it notices.

nginx keeps connections open, and may be writing a request on one at the very moment at which it's closed; a create is
lost that way, since nobody may repeat it. So a worker that is to end goes on serving for a while: each answer says
`Connection: close`, idle connections stay until nginx doesn't use them any more (`KEEP_ALIVE`, of which it has a
little less), and new ones are accepted as long as that takes. Then it listens no more, and ends what is under way.

One whose master was killed takes its time: until whoever watches over the master has started another, and that one its
workers, nobody else serves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import Protocol, cast

from uvicorn import Config, Server
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

LOOK = 0.05
"""Seconds between two looks at what is still open."""
SUCCESSION = 5.0
"""Seconds that a killed master's workers serve at least."""


class State(ServerState):
    """What a worker's connections share."""

    leaving = False
    """Whether answers end their connections."""


class Leaver(Protocol):
    """A connection that can be told that its worker leaves."""

    def leave(self) -> None: ...


class PatientServer(Server):
    """uvicorn's server, which takes its leave before it shuts down."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.server_state: State = State()
        self._graceful = float(config.timeout_graceful_shutdown or 0)
        self._parent = os.getppid()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take leave for `timeout_keep_alive` at most (an orphan for `SUCCESSION`), then end within what is left of
        `timeout_graceful_shutdown`."""
        started = time.monotonic()
        orphan = os.getppid() != self._parent
        longest = max(self.config.timeout_keep_alive, SUCCESSION if orphan else 0)
        await self._take_leave(started + min(longest, self._graceful / 2), alone=orphan)
        self.config.timeout_graceful_shutdown = max(1, int(self._graceful - (time.monotonic() - started)))
        await super().shutdown(sockets)

    async def _take_leave(self, limit: float, *, alone: bool) -> None:
        """Until the connections that are open now have come to their end, or so late (monotonic seconds); if nobody
        else serves, until then in any case."""
        self.server_state.leaving = True
        connections = self.server_state.connections
        old = set(connections)
        for connection in old:
            cast("Leaver", connection).leave()
        while (alone or old & connections) and time.monotonic() < limit and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)  # uvicorn's set tells nobody
