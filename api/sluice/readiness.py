"""Whether this worker may serve, and why not: MongoDB reached, the service let in, the database prepared."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from pymongo.errors import PyMongoError

from sluice.drivers.connected import Database
from sluice.errors import NotPrepared, brief, is_refusal

log = logging.getLogger(__name__)

Prepare = Callable[[Database], Awaitable[str | None]]
"""Makes the database what it must be before anything is written, or raises. What it returns is missing, but no reason
not to serve (a schema that this user may not set, say); it is tried again now and then."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
"""Seconds between two attempts to prepare the database, twice as long each time."""
SAY_AGAIN = 60.0
LONGEST_SILENCE = 3600.0
"""Seconds after which an unchanged reason not to be ready is logged again, twice as long each time."""


class Readiness:
    """Reaches MongoDB by `reach`, which raises what the driver raises, and prepares what that returns.

    `described` says for the log what has been reached.
    """

    def __init__(
        self, reach: Callable[[], Awaitable[Database]], prepare: Prepare | None, described: Callable[[], str]
    ) -> None:
        self._reach = reach
        self._prepare = prepare
        self._described = described
        self._prepared = asyncio.Event()
        self._reason = "MongoDB has not been reached yet"
        self._incomplete: str | None = None
        self._doubted = False
        self._next_attempt = 0.0
        self._pause = FIRST_PAUSE
        self._said: dict[object, tuple[float, float]] = {}
        self.refusal: Exception | None = None
        """Why the database didn't let itself be prepared, where that was for a missing right."""

    @property
    def prepared(self) -> bool:
        """Whether the database is what it must be before anything is written."""
        return self._prepared.is_set()

    async def wait_until_prepared(self) -> None:
        await self._prepared.wait()

    def reason(self, ready: bool) -> str | None:
        """Why the worker isn't ready; what is incomplete although it is; None when all is well."""
        if ready:
            return self._incomplete
        return self._reason or "no primary is known, or its pool is paused"

    def check_prepared(self) -> None:
        """Raises `NotPrepared` before a write while the database isn't; without `prepare` it always is."""
        if self._prepare is not None and not self._prepared.is_set():
            raise NotPrepared(self._reason)

    def doubt(self, refusal: BaseException) -> None:
        """An operation wasn't allowed. Whether that goes for the whole service, preparing again will tell."""
        self._doubted = True

    def is_due(self, ready: bool) -> bool:
        """Whether MongoDB should be asked whether all is well again."""
        if self._doubted or not ready:
            return True
        if self._incomplete is None:
            self._said.clear()
            return False
        return asyncio.get_running_loop().time() >= self._next_attempt

    async def attempt(self) -> None:
        """Reach the primary and prepare the database; says why when it can't, and is called again."""
        try:
            database = await self._reach()
        except (PyMongoError, OSError, ValueError, TypeError) as error:  # the last two: options that can't be
            self._not_ready(error, brief(error))
            return
        if self._prepared.is_set():
            self._reason = ""
        if self._doubted or self._incomplete or not self._prepared.is_set():
            await self._make_prepared(database)

    async def _make_prepared(self, database: Database) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_attempt:
            return
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        try:
            incomplete = await self._prepare(database) if self._prepare is not None else None
        except NotPrepared as error:
            self.refusal = None
            self._prepared.clear()  # also where it was: an index that somebody has dropped, say
            self._not_ready(str(error), str(error))
        except Exception as error:
            self.refusal = error if is_refusal(error) else None
            unexpected = None if isinstance(error, PyMongoError) else error
            self._not_ready(error, f"preparing the database failed: {brief(error)}", unexpected)
        else:
            if not self._doubted and incomplete is None:  # a refused service doesn't ask faster and faster
                self._pause = FIRST_PAUSE
            self.refusal, self._doubted = None, False
            self._reason, self._incomplete = "", incomplete
            if incomplete is not None and self._is_news(incomplete):
                log.warning("the database isn't quite prepared: %s", incomplete)
            if not self._prepared.is_set():
                self._prepared.set()
                log.info("connection pool ready: %s", self._described())
        self._next_attempt = loop.time() + pause

    def _not_ready(self, cause: object, reason: str, unexpected: Exception | None = None) -> None:
        """Keep the reason for whoever asks, and log it when it's another one, or after a long while."""
        self._reason = reason
        # Of one kind of error the text differs each time: which member was asked, and what it answered.
        if self._is_news((type(cause), getattr(cause, "code", None)) if isinstance(cause, Exception) else cause):
            log.warning("connection pool not ready: %s", reason, exc_info=unexpected)

    def _is_news(self, what: object) -> bool:
        """Whether to log it: not said since all was well, or so long ago that it may be said again."""
        now = time.monotonic()
        after, pause = self._said.get(what, (0.0, SAY_AGAIN))
        if now < after:
            return False
        self._said[what] = (now + pause, min(2 * pause, LONGEST_SILENCE))
        return True
