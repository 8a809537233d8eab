"""What ends something on the server, of the functions that Motor runs: see `sluice.pool.claims`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from pymongo import MongoClient
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor

from sluice.pool.claims import MOMENT, Claim

ENDINGS = frozenset(
    {
        ClientSession.abort_transaction,
        ClientSession.commit_transaction,
        ClientSession.end_session,
        Cursor.close,
        CommandCursor.close,
        ChangeStream.close,
    }
)


def claim_of(function: object, session: ClientSession | None) -> Claim:
    """What a function that Motor runs may be told at the turnstile, in the transaction of this session if any."""
    if function in ENDINGS:
        return Claim.FINISHING
    return Claim.BEGUN if session is not None else Claim.ORDINARY


def needs_no_server(function: object, session: ClientSession | None) -> bool:
    """Whether such a function only keeps the driver's books, so that nothing need wait for a thread."""
    return function is MongoClient.start_session or (function is ClientSession.end_session and session is None)


def in_transaction(values: Iterable[object]) -> ClientSession | None:
    """The session of what such a function gets, if a transaction is open on it."""
    for value in values:
        session = value.session if isinstance(value, Cursor | CommandCursor) else value
        if isinstance(session, ClientSession) and session.in_transaction:
            return session
    return None


class UnderWay:
    """Operations in transactions. One whose caller was cancelled runs on in its thread: sent after the abort, it would
    begin the transaction on the server that nobody ends."""

    def __init__(self) -> None:
        self._jobs: dict[ClientSession, set[asyncio.Future[None]]] = {}

    def add(self, session: ClientSession) -> Callable[[], None]:
        """One begins; call what this returns when it is over."""
        job: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        jobs = self._jobs.setdefault(session, set())
        jobs.add(job)

        def over() -> None:
            job.set_result(None)
            jobs.discard(job)
            if not jobs:
                self._jobs.pop(session, None)

        return over

    async def settle(self, session: ClientSession) -> None:
        """Wait for the session's, but no longer than until they were surely sent."""
        if jobs := self._jobs.get(session):
            await asyncio.wait(list(jobs), timeout=MOMENT)
