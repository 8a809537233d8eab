"""PyMongo's asynchronous connection, which sends and receives without a task of its own.

The driver makes two tasks for each message that it receives (one reads, the other looks twice a second whether the
operation was cancelled) and one for each that it sends; they cost as much as the rest of the connection's work. Here
whoever asks reads by itself. What ends its wait early: the time that it has, its own cancellation, and the connection's
end, by the other side or by a pool that is closed or cleared.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pymongo import _csot
from pymongo.asynchronous.pool import AsyncConnection
from pymongo.errors import ProtocolError, _OperationCancelled
from pymongo.message import _UNPACK_REPLY

from sluice.drivers.pools import TrackedConnection

if TYPE_CHECKING:
    from pymongo.message import _OpMsg


class CountedConnection(TrackedConnection, AsyncConnection):
    """Counts its end."""

    _waits: asyncio.Timeout | None = None
    """For an answer, if it does."""

    async def close_conn(self, reason: str | None) -> None:
        if reason is not None and not self.closed:
            # First: who is cancelled while it closes has closed it, though the driver then sends no event.
            self.tracker.closed(self.id, reason)
        await super().close_conn(reason)

    async def send_message(self, message: bytes, max_doc_size: int) -> None:
        if self.max_bson_size is not None and max_doc_size > self.max_bson_size:
            await super().send_message(message, max_doc_size)  # raises what the driver has for that
        try:
            await self.conn.get_conn.write(message)  # which waits for nothing: the transport takes any message
        except BaseException as error:
            await self._raise_connection_failure(error)

    async def receive_message(self, request_id: int | None) -> _OpMsg:
        try:
            data, code = await self._read(request_id)
            try:
                unpack = _UNPACK_REPLY[code]
            except KeyError:
                raise ProtocolError(
                    f"the answer has opcode {code}; known are {', '.join(map(str, _UNPACK_REPLY))}"
                ) from None
            return unpack(data)
        except BaseException as error:
            await self._raise_connection_failure(error)

    async def _read(self, request_id: int | None) -> tuple[bytes, int]:
        if self.cancel_context.cancelled:
            raise _OperationCancelled("operation cancelled")
        try:
            async with asyncio.timeout(self._patience()) as self._waits:
                return await self.conn.get_conn.read(request_id, self.max_message_size)
        except TimeoutError:
            if self.cancel_context.cancelled:
                raise _OperationCancelled("operation cancelled") from None
            raise TimeoutError("timed out") from None
        finally:
            self._waits = None

    def _patience(self) -> float | None:
        """Seconds that the answer may take: what `pymongo.timeout()` leaves, or the socket's timeout."""
        if _csot.get_timeout():
            return max(0.0, _csot.get_deadline() - time.monotonic())
        return self.conn.gettimeout or None

    def interrupt(self) -> None:
        """End the wait for an answer, if there is one, where the driver has cancelled this connection's operation."""
        if self._waits is not None and self.cancel_context.cancelled and not self._waits.expired():
            self._waits.reschedule(asyncio.get_running_loop().time())
