"""What happens around every request; plain ASGI, since it runs for each of them. `serving.assembly` has the order."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable

from pymongo.errors import ExecutionTimeout
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import context, errors, problems
from app.http.problems import Problem
from app.http.routing import is_unlimited, template
from sluice import Abandoned, Sluice, deadline, timings

log = logging.getLogger(__name__)

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
MOST_DIGITS = 18
"""Of a length: below 64 bits, and far below what Python refuses to read (4300)."""
MOST_BACKSLASHES = 16
"""In a Cookie header; one of more is left out."""

GIVEN_UP = (Abandoned, ExecutionTimeout, ClientDisconnect)
"""What a request raises that is given up, since whoever asked has gone. Anything else is told as ever."""
LIMIT = "sluice.limit"
"""Where a scope has its request's `deadline.limit`."""
ANSWER = "sluice.answer"
"""Where a scope has its answer's headers, once that has begun."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """A request header's first value; the name in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


CLOSE = {"Connection": "close"}
AT_ONCE = ((b"x-accel-buffering", b"no"),)
"""With a stream of events: nginx hands each on as it comes."""
LAST_ANSWER = ((b"connection", b"close"),)
"""After a request to be upgraded: plain `uvicorn` takes its body for the next one. `HttpProtocol` hides the header."""


class Context:
    """Gives each request an id, follows its trace, and says in the answer where the time went.

    Each is told to `log_access` at its end, with its status (0: it was never answered) and the seconds until its answer
    began: a stream isn't slow because it's long, nor a request because of its background tasks.
    """

    def __init__(self, app: ASGIApp, log_access: Callable[[Scope, int, float], None]) -> None:
        self.app = app
        self._log_access = log_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(reversed(scope["headers"]))  # the first of each name counts
        if b"cookie" in headers:
            scope["headers"] = [field for field in scope["headers"] if not _is_costly_cookie(*field)]
        request_id = context.sane_id(headers.get(b"x-request-id"))
        trace = follow(headers.get(b"traceparent"))
        id_token = context.request_id.set(request_id.decode())
        trace_token = context.trace_id.set(trace[3:35].decode() if trace else "")
        status, seconds = 0, None

        async def send_with_headers(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - started
                given = message.get("headers", ())
                scope[ANSWER] = message["headers"] = [
                    *given,
                    *(AT_ONCE if is_event_stream(given) and AT_ONCE[0] not in given else ()),
                    (b"x-request-id", request_id),
                    (b"server-timing", server_timing(timed, seconds)),
                    *([(b"traceparent", trace)] if trace else ()),
                    *(LAST_ANSWER if b"upgrade" in headers else ()),
                ]
            await send(message)

        try:
            with timings.collect(lambda: f"{scope['method']} {template(scope)}") as timed:
                await self.app(scope, receive, send_with_headers)
        finally:
            self._log_access(scope, status, time.perf_counter() - started if seconds is None else seconds)
            context.request_id.reset(id_token)
            context.trace_id.reset(trace_token)


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer with these headers is one."""
    for name, value in headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


def _is_costly_cookie(name: bytes, value: bytes) -> bool:
    """No cookie has a backslash (RFC 6265). Python before 3.11.10 and 3.12.6 takes quadratic time for many of them, on
    behalf of every route that FastAPI reads parameters for.
    """
    return name == b"cookie" and value.count(b"\\") > MOST_BACKSLASHES


def follow(traceparent: bytes | None) -> bytes | None:
    """The `traceparent` of this service in the caller's trace; None where the caller's is missing or malformed."""
    parts = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if parts is None:
        return None
    version, trace, parent, flags, more = parts.groups()
    if version == b"ff" or (version == b"00" and more) or not trace.strip(b"0") or not parent.strip(b"0"):
        return None
    return b"00-%b-%016x-%b" % (trace, random.getrandbits(64) or 1, flags)


def server_timing(timed: timings.Timings, seconds: float) -> bytes:
    """Milliseconds in the wait queue, in the database, and in the handler (the rest)."""
    queue = timed.queue_wait
    database = max(0.0, timed.database - queue)
    handler = max(0.0, seconds - queue - database)
    return b"queue;dur=%.1f, db;dur=%.1f, handler;dur=%.1f" % (queue * 1000, database * 1000, handler * 1000)


class Problems:
    """Turns whatever goes wrong inside into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answering = False

        async def watch(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if answering:
                raise  # too late for another answer: the server cuts the connection
            refusal = _refusal(scope)
            problem = errors.problem_of(error, scope["method"], refusal)
            cause = errors.cause_of(errors.instead(error, refusal))
            if cause is not None:
                level = logging.ERROR if problem.kind.status == 500 else logging.WARNING
                log.log(level, "%s %s failed: %s", scope["method"], template(scope), cause)
            elif problem.kind.status == 500:
                log.exception("%s %s failed", scope["method"], template(scope))
            await problems.response(HTTPConnection(scope), problem)(scope, receive, send)


def _refusal(scope: Scope) -> Exception | None:
    sluice: Sluice | None = getattr(scope["app"].state, "sluice", None)
    return None if sluice is None else sluice.refusal


class Deadline:
    """Gives each request its time: `seconds`, or less if the caller asks for less in `X-Request-Timeout-Ms`.

    It ends when the answer begins: a stream and background tasks take what they need.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_unlimited(scope["path"]):
            await self.app(scope, receive, send)
            return
        seconds = self._seconds
        wish = header(scope, b"x-request-timeout-ms")
        if wish is not None:
            if not (wish.isdigit() and len(wish) <= 9 and int(wish) > 0):
                raise Problem(
                    problems.BAD_REQUEST, "X-Request-Timeout-Ms: allowed is a whole number above 0, of at most 9 digits"
                )
            seconds = min(seconds, int(wish) / 1000)
        limit = scope[LIMIT] = deadline.limit(seconds)

        async def send_and_lift(message: Message) -> None:
            if message["type"] == "http.response.start":
                limit.lift()
            await send(message)

        async with limit:
            try:
                await self.app(scope, receive, send_and_lift)
            except GIVEN_UP as error:
                if limit.abandoned:
                    raise Abandoned("whoever asked has gone") from error
                raise


async def no_deadline(request: Request) -> None:
    """For a route that may take longer than others before its answer begins: `dependencies=[Depends(no_deadline)]`."""
    limit: deadline.limit | None = request.scope.get(LIMIT)
    if limit is not None:
        limit.lift()


class BodyLimit:
    """Refuses bodies of more than `limit` bytes: at once where their length is announced, else when they reach it.

    So are those in chunks of something else, which nothing here would unpack.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))
        if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
            raise Problem(problems.NOT_IMPLEMENTED, "Transfer-Encoding: allowed is chunked", headers=CLOSE)
        announced = headers.get(b"content-length")
        if announced is not None and announced.isdigit():
            digits = announced.lstrip(b"0")
            if len(digits) > MOST_DIGITS or int(digits or b"0") > self._limit:
                raise self._refusal()
        read = 0

        async def receive_counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._limit:
                    raise self._refusal()
            return message

        await self.app(scope, receive_counted, send)

    def _refusal(self) -> Problem:
        # The rest of the body is not read, so the connection can't be used again.
        return Problem(
            problems.CONTENT_TOO_LARGE,
            f"allowed are bodies of at most {self._limit} bytes",
            headers=CLOSE,
        )
