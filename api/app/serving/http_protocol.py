"""uvicorn's HTTP protocol, strict: nothing is upgraded unasked, and what isn't understood is refused as a problem."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.http import context, problems
from app.http.errors import REPEATABLE
from app.http.middleware import ANSWER, LIMIT, Context, header, is_event_stream
from app.http.problems import Kind, Problem
from app.observe.access_log import AccessLog
from app.serving.leaving import State
from app.serving.one_write import OneWriteProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

MOST_HEAD = 65_536
"""Most bytes of a request's line and headers together."""
LAST_CHUNK = b"0\r\n\r\n"
LAST_LOOK = 0.02
"""Seconds that an idle connection's last request may be late."""
FIRST_REQUEST = 1.0
"""Seconds that a new connection gets for its first request when its worker has left."""

_END = re.compile(rb"\n(\r?\n)")
"""Of a head, also of one that isn't as it should be."""
_REQUEST_ID = re.compile(rb"\r\nx-request-id: ?([^\r\n]{1,128})\r\n", re.IGNORECASE)


class HttpProtocol(OneWriteProtocol):
    """What Gunicorn's workers speak.

    The parser takes a message that asks for an upgrade to end with its headers, and its body for the next request. HTTP
    lets a server ignore the wish: such a message is read a second time, without it.
    """

    _over = False
    """What still comes on this connection is not read."""
    _head = 0
    """Bytes of an unfinished head."""
    _again = b""
    """The head of a message that asked for an upgrade, without that."""

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._unset_keepalive_if_required()
        rest: bytes | memoryview[int] = data
        try:
            while True:
                try:
                    self.parser.feed_data(rest)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    rest = memoryview(rest)[upgrade.args[0] :]
                    if self.scope["method"] == "CONNECT":
                        self._refuse(problems.NOT_IMPLEMENTED, "this is no proxy", data)
                        return
                    self.parser = httptools.HttpRequestParser(self)  # the old one may take the connection to be closed
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                    self.parser.feed_data(self._again)
        except httptools.HttpParserInvalidMethodError:
            self._refuse(problems.NOT_IMPLEMENTED, "there is no such method", data)
        except httptools.HttpParserInvalidURLError:
            self._refuse(problems.BAD_REQUEST, "an address is ASCII: write other characters as in M%C3%BCnchen", data)
        except httptools.HttpParserCallbackError:
            self._refuse(problems.BAD_REQUEST, "this address can't be understood", data)
        except httptools.HttpParserError as error:
            self._refuse(problems.BAD_REQUEST, f"this is no HTTP: {error}", data)
        else:
            if self.scope and "method" not in self.scope:
                self._head += len(data)
                if self._head > MOST_HEAD:
                    detail = f"allowed are headers of at most {MOST_HEAD} bytes together"
                    self._refuse(problems.HEADERS_TOO_LARGE, detail, data)
            elif self.scope:
                self.headers.clear()  # of those behind a chunked body there may be any number

    # Parser callbacks

    def on_headers_complete(self) -> None:
        self._head = 0
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self._again = self._head_without_upgrade()
            return
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False
        self.headers = []  # those after a chunked body are none of the request's

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self.cycle.more_body = False  # uvicorn leaves it after an early answer
        self.cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        """Whether a route is made for the upgrade that is asked for: there is none yet."""
        return False

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(fields))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever asked has gone: what nobody waits for isn't worked on. See `sluice.deadline.limit.abandon`."""
        cycle = self.cycle
        super().connection_lost(exc)
        if cycle is None or cycle.response_complete:
            return
        scope = cast("Scope", cycle.scope)
        limit = scope.get(LIMIT)
        if limit is not None:
            limit.abandon(reads=scope["method"] in REPEATABLE)

    # The worker's end

    @property
    def _leaving(self) -> bool:
        return isinstance(self.server_state, State) and self.server_state.leaving

    def leave(self) -> None:
        """Say with the next answer that it's the last. An idle connection stays: a request may be under way to it."""
        cycle = self.cycle
        if cycle is None:
            if self.timeout_keep_alive_task is None:  # uvicorn sets it after an answer only
                self._close_when_idle(self.timeout_keep_alive)
        elif not cycle.response_started:
            cycle.keep_alive = False

    def shutdown(self) -> None:
        """Let what is under way come to its end, but for streams of events: they have none, so it is now.

        Their clients come back to another worker. A connection that had no request since the worker began to leave is
        closed; one that had none at all was opened for one, which may be on its way.
        """
        cycle = self.cycle
        if cycle is None:
            self._close_when_idle(min(FIRST_REQUEST, self.timeout_keep_alive))
            return
        if cycle.response_complete:
            self._close_when_idle(LAST_LOOK)
            return
        self.leave()
        if is_event_stream(cast("Scope", cycle.scope).get(ANSWER, ())):
            if cycle.chunked_encoding:
                self.transport.write(LAST_CHUNK)
            cycle.disconnected = True  # which the application learns as if the client had gone
            cycle.message_event.set()
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Look once more before closing it: in a loop that was busy, timers come before what has arrived."""
        self._close_when_idle(LAST_LOOK)

    def _close_when_idle(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        close = super().timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(seconds, close)

    # Answers that the application doesn't give

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, _busy if app is service_unavailable else app)

    def _refuse(self, kind: Kind, detail: str, data: bytes) -> None:
        """Answer what has just come with this problem, and end the connection."""
        self._over = True
        cycle = self.cycle
        if cycle is not None and not (cycle.more_body or cycle.response_complete):
            cycle.keep_alive = False  # it came behind a request that is whole and gets its answer
            return
        if cycle is not None and cycle.more_body:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:  # its answer or another's is under way
                self.transport.close()
                return
        request_id = context.sane_id(self._id_of_the_refused(data))
        token = context.request_id.set(request_id.decode())
        self.logger.warning("A message was refused (%d): %s", kind.status, detail)
        path = self.url.partition(b"?")[0].decode("latin-1")
        answer = problems.response(HTTPConnection({"type": "http", "path": path}), Problem(kind, detail))
        context.request_id.reset(token)
        headers = [
            *self.server_state.default_headers,
            *answer.raw_headers,
            (b"x-request-id", request_id),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        status = f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n".encode()
        self.transport.write(status + lines + b"\r\n" + bytes(answer.body))
        self.transport.close()

    def _id_of_the_refused(self, data: bytes) -> bytes | None:
        """The request's own: neither one that stands in its body, nor that of a message behind it."""
        if self.cycle is not None and self.cycle.more_body:
            return header(cast("Scope", self.cycle.scope), b"x-request-id")
        end = _END.search(data)
        found = _REQUEST_ID.search(data, 0, end.start(1) if end else len(data))
        return found[1] if found else None


async def _refuse_for_load(scope: Scope, receive: Receive, send: Send) -> None:
    problem = Problem(problems.BUSY, "this worker has WORKER_CONNECTIONS already", headers={"Connection": "close"})
    await problems.response(HTTPConnection(scope), problem)(scope, receive, send)


_busy = cast("ASGI3Application", Context(_refuse_for_load, AccessLog("off").write))
