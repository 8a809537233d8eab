"""What ends something on the server, in PyMongo's asynchronous API: see `sluice.pool.claims`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession

from sluice.drivers.transactions import ENDINGS as ENDINGS
from sluice.pool.claims import MOMENT, Claim

Result = TypeVar("Result")

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
