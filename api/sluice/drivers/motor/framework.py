"""Motor's own classes, made of its asyncio framework with another way into the threads."""

from __future__ import annotations

import asyncio
import random
import time
import types
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from motor import core
from motor.frameworks import asyncio as motors
from motor.metaprogramming import create_class_with_framework
from pymongo.client_session import ClientSession
from pymongo.errors import ExecutionTimeout, PyMongoError

from sluice.drivers.connected import Document
from sluice.drivers.motor.client import SyncClient
from sluice.errors import TRANSIENT

Result = TypeVar("Result")
REPEATING = 120.0
MOST_PAUSE = 0.5
"""Seconds, as the driver has them."""


def client_class(run_on_executor: Callable[..., asyncio.Task[Any]]) -> Callable[..., Any]:
    """Motor's client, whose operations `run_on_executor(loop, function, *args, **kwargs)` runs."""
    framework = types.ModuleType("sluice_motor_framework")
    vars(framework).update(vars(motors), run_on_executor=run_on_executor, add_future=add_future)
    return create_class_with_framework(MotorClient, framework, "motor.motor_asyncio")


def add_future(
    loop: asyncio.AbstractEventLoop, inner: asyncio.Future[Any], callback: Callable[..., None], *arguments: Any
) -> None:
    """As Motor's own, but whoever gives up a cursor's `to_list` also gives up the batch that it waits for."""
    outer = [argument for argument in arguments if asyncio.isfuture(argument)]

    def hand_over(done: asyncio.Future[Any]) -> None:
        if not any(future.cancelled() for future in outer):
            loop.call_soon(partial(callback, *arguments, done))

    def give_up(done: asyncio.Future[Any]) -> None:
        if done.cancelled():
            inner.cancel()

    inner.add_done_callback(hand_over)
    for future in outer:
        future.add_done_callback(give_up)


class MotorSession(core.AgnosticClientSession):
    """Motor would abort a transaction that is left open on the event loop's own thread, and repeats no commit.

    Whoever is cancelled again and again while it ends goes at once; it ends all the same.
    """

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.end_session())

    async def with_transaction(self, coro: Callable[[Any], Awaitable[Result]], *options: Any, **named: Any) -> Result:
        """As PyMongo's. Motor's own commits as it leaves its context manager, beyond its own repetitions."""
        session: Any = self  # most of its attributes are made by Motor
        end, pause = time.monotonic() + REPEATING, 0.005
        while True:
            session.start_transaction(*options, **named)
            try:
                result = await coro(self)
                if session.in_transaction:
                    await self._commit_until(end)
            except BaseException as error:
                if session.in_transaction:
                    await session.abort_transaction()
                if not _says(error, TRANSIENT) or time.monotonic() + pause > end:
                    raise
            else:
                return result
            await asyncio.sleep(random.random() * pause)
            pause = min(1.5 * pause, MOST_PAUSE)

    async def _commit_until(self, end: float) -> None:
        while True:
            try:
                await self.commit_transaction()
            except PyMongoError as error:
                unknown = _says(error, "UnknownTransactionCommitResult") and not isinstance(error, ExecutionTimeout)
                if not unknown or time.monotonic() > end:
                    raise
            else:
                return


def _says(error: BaseException, label: str) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(label)


class MotorClient(core.AgnosticClient[Document]):
    __delegate_class__ = SyncClient

    def wrap(self, obj: Any) -> Any:
        if isinstance(obj, ClientSession):
            return create_class_with_framework(MotorSession, self._framework, self.__module__)(obj, self)
        return super().wrap(obj)
