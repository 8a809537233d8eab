"""What must reach the server though the queue is full: whatever belongs to a transaction, or ends something.

Refused, a commit or an abort leaves a transaction open, with its locks, and a `killCursors` a cursor, until the server
loses patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from pymongo import MongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.change_stream import ChangeStream
from pymongo.client_session import ClientSession
from pymongo.command_cursor import CommandCursor
from pymongo.cursor import Cursor

from sluice.turnstile import Claim

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
"""Seconds for the answer to what has got its connection after its caller was cancelled."""

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


def claim_of(session: AsyncClientSession | None) -> Claim:
    """What an operation on this session may be told at a turnstile."""
    if _under_way.get() is not None:
        return Claim.FINISHING
    return Claim.BEGUN if session is not None and session.in_transaction else Claim.ORDINARY


def motor_claim_of(function: object, values: Iterable[object]) -> Claim:
    """The same for a function of the synchronous driver's that Motor runs with these values."""
    if function in MOTOR_ENDINGS:
        return Claim.FINISHING
    return Claim.BEGUN if any(map(_in_transaction, values)) else Claim.ORDINARY


def needs_no_server(function: object, values: Sequence[object]) -> bool:
    """Whether such a function only keeps the driver's books, so that nothing need wait for a thread."""
    if function is ClientSession.end_session:
        return not any(map(_in_transaction, values))
    return function is MongoClient.start_session


def _in_transaction(value: object) -> bool:
    session = value.session if isinstance(value, Cursor | CommandCursor) else value
    return isinstance(session, ClientSession) and session.in_transaction
