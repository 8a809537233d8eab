"""How a worker leaves: nobody who talks to it notices.

nginx keeps connections open, and may be writing a request on one at the very moment at which it's closed; a create is
lost that way, since nobody may repeat it. So a worker that is to end goes on serving for a while: each answer says
`Connection: close`, idle connections stay until nginx doesn't use them any more (`KEEP_ALIVE`, of which it has a
little less), and new ones are accepted as long as that takes. Then it listens no more, and ends what is under way.

It takes longer where the next workers have still to begin (`app.serving.succession`), and where its master was killed:
until whoever watches over the master has started another, and that one its workers, nobody else serves.
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

from app.serving.succession import Place

log = logging.getLogger(__name__)

LOOK = 0.05
"""Seconds between two looks at what is still open."""
SUCCESSION = 5.0
"""Seconds that workers serve on at most where the next ones don't yet; those of a killed master, in any case."""


class State(ServerState):
    """What a worker's connections share."""

    leaving = False
    """Whether answers end their connections."""


class Leaver(Protocol):
    """A connection that can be told that its worker leaves."""

    def leave(self) -> None: ...


class PatientServer(Server):
    """uvicorn's server, which takes its leave before it shuts down."""

    def __init__(self, config: Config, place: Place) -> None:
        super().__init__(config)
        self._place = place
        self.server_state: State = State()
        self._graceful = float(config.timeout_graceful_shutdown or 0)
        self._parent = os.getppid()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._place.serves()

    async def on_tick(self, counter: int) -> bool:
        """Whether to leave. One that has served its `limit_max_requests` waits for its turn."""
        limit = self.limit_max_requests
        if limit is None or self.server_state.total_requests < limit or self._place.takes_its_turn():
            return await super().on_tick(counter)
        self.limit_max_requests = None
        try:
            return await super().on_tick(counter)
        finally:
            self.limit_max_requests = limit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take leave, then end within what is left of `timeout_graceful_shutdown`."""
        ordered = await self._take_leave()
        self.config.timeout_graceful_shutdown = max(1, int(self._graceful - (time.monotonic() - ordered)))
        await super().shutdown(sockets)

    async def _take_leave(self) -> float:
        """Until the connections that are open now have come to their end, for `timeout_keep_alive` at most, and for
        `SUCCESSION` while nobody else serves; for half of `timeout_graceful_shutdown` at most once it's been ordered.

        Returns since when the master has measured the time that is left, which it doesn't of a leave by own choice.
        """
        self.server_state.leaving = True
        self.limit_max_requests = None  # it has no further say, and `on_tick` none about turns
        self._place.leaves()
        orphan = os.getppid() != self._parent
        connections = self.server_state.connections
        old = set(connections)
        for connection in old:
            cast("Leaver", connection).leave()
        started = time.monotonic()
        ordered = started if self.should_exit else None

        def needed() -> bool:
            now = time.monotonic()
            passed = now - started
            if self.force_exit or (ordered is not None and now - ordered >= self._graceful / 2):
                return False
            if passed < SUCCESSION and (orphan or self._place.others_start()):
                return True
            return passed < self.config.timeout_keep_alive and bool(old & connections)

        looks = 0
        while needed():
            await self.on_tick(looks)  # the time of day in answers
            await asyncio.sleep(LOOK)  # uvicorn's set tells nobody
            looks += 1
            if ordered is None and self.should_exit:
                ordered = time.monotonic()
        return time.monotonic() if ordered is None else ordered
