"""What must reach the server though the queue is full: whatever belongs to a transaction, or ends something.

Refused, a commit or an abort leaves a transaction open, with its locks, and a `killCursors` a cursor, until the server
loses patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from pymongo import MongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor

from sluice.pool.turnstile import Claim

Result = TypeVar("Result")

ENDINGS = frozenset({"abortTransaction", "commitTransaction"})
MOTOR_ENDINGS = frozenset(
    {
        ClientSession.abort_transaction,
        ClientSession.commit_transaction,
        ClientSession.end_session,
        Cursor.close,
        CommandCursor.close,
        ChangeStream.close,
    }
)
MOMENT = 0.25
"""Seconds for what has got its connection to be sent and answered after its caller was cancelled."""

_under_way: ContextVar[asyncio.Future[None] | None] = ContextVar("sluice_finishing", default=None)


@contextmanager
def finishing() -> Iterator[asyncio.Future[None]]:
    """The operations in this block end something. The future is done once one of them has its connection."""
    sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    token = _under_way.set(sent)
    try:
        yield sent
    finally:
        _under_way.reset(token)


def has_connection() -> None:
    """The running operation has got its connection."""
    sent = _under_way.get()
    if sent is not None and not sent.done():
        sent.set_result(None)


async def see_through(ending: Coroutine[Any, Any, Result]) -> Result:
    """Run what ends a transaction. Who is cancelled meanwhile still waits its turn and sends it, and a moment more.

    The driver takes a transaction whose commit was cancelled for ended, and so nobody would end it on the server. Who
    is cancelled twice goes at once.
    """
    with finishing() as sent:
        task = asyncio.create_task(ending)
        task.add_done_callback(take_outcome)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            try:
                await asyncio.wait((task, sent), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait({task}, timeout=MOMENT)
            finally:
                task.cancel()
            await asyncio.wait({task})
            raise


def take_outcome(task: asyncio.Task[Any]) -> None:
    """So that asyncio doesn't complain of a failure that nobody waited for."""
    if not task.cancelled():
        task.exception()


def claim_of(session: AsyncClientSession | None) -> Claim:
    """What an operation on this session may be told at a turnstile."""
    if _under_way.get() is not None:
        return Claim.FINISHING
    return Claim.BEGUN if session is not None and session.in_transaction else Claim.ORDINARY


def motor_claim_of(function: object, session: ClientSession | None) -> Claim:
    """The same for a function that Motor runs, of the synchronous driver, in the transaction of this session if any."""
    if function in MOTOR_ENDINGS:
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
    """Motor's operations in transactions. Whoever is cancelled leaves his in its thread: sent after the abort, it would
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
