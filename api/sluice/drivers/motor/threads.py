"""The threads that run Motor's operations, and the turnstile before them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sluice.drivers.motor.endings import ENDINGS, UnderWay, claim_of, in_transaction, needs_no_server
from sluice.drivers.motor.pool import already_waited
from sluice.errors import TRANSIENT, PoolUnavailable, QueueTimeout
from sluice.pool.claims import Claim
from sluice.pool.turnstile import Turnstile

P = ParamSpec("P")
R = TypeVar("R")


class Threads:
    """As many as the gate has permits. `limited` is the time that an operation has in the queue and in its thread."""

    def __init__(self, gate: Turnstile, limited: Callable[[], AbstractContextManager[Any]]) -> None:
        self._gate = gate
        self._limited = limited
        self._executor = ThreadPoolExecutor(gate.permits, thread_name_prefix="sluice-motor")
        self._loop = asyncio.get_running_loop()
        self._under_way = UnderWay()
        self._closed = False

    def run(
        self, loop: asyncio.AbstractEventLoop, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Task[R]:
        """As Motor's own `run_on_executor`, in turn."""
        return loop.create_task(self._in_turn(function, *args, **kwargs))

    def refuse(self) -> None:
        """Take no more operations, and turn away those that wait."""
        self._closed = True
        self._gate.evict(lambda: PoolUnavailable("the MongoDB client was closed"))

    def end(self) -> None:
        """End the threads, each with the operation that it runs."""
        self._executor.shutdown(wait=False)

    async def _in_turn(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        values = (*args, *kwargs.values())
        session = in_transaction(values)
        if session is not None and function in ENDINGS:
            await self._under_way.settle(session)
            session = in_transaction(values)
        if needs_no_server(function, session):
            return function(*args, **kwargs)
        if self._closed:
            raise PoolUnavailable("the MongoDB client is closed")
        with self._limited():  # begins here, not in the thread
            started = self._loop.time()
            claim = claim_of(function, session)
            try:
                await self._gate.enter(claim)
            except QueueTimeout as error:
                if claim is Claim.BEGUN:  # as the driver does it: the transaction may be tried again as a whole
                    error._add_error_label(TRANSIENT)
                raise
            context = contextvars.copy_context()
        context.run(already_waited.set, self._loop.time() - started)
        try:
            job = self._executor.submit(partial(context.run, partial(function, *args, **kwargs)))
        except BaseException:
            self._gate.leave()
            raise
        over = self._under_way.add(session) if session is not None else None
        job.add_done_callback(partial(self._leave, over))
        return await asyncio.wrap_future(job)

    def _leave(self, over: Callable[[], None] | None, job: Future[R]) -> None:
        """Called in the thread when the operation is really over, whoever still waits for it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._gate.leave)
            if over is not None:
                self._loop.call_soon_threadsafe(over)
