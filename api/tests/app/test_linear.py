"""Whatever reads a header, a query or a body takes time in proportion to it: no caller can hold up the others."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from typing import NoReturn

import pytest
from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from app.http import context, etags, media_type, middleware
from app.http.problems import Problem
from app.observe import logs
from app.observe.access_log import AccessLog
from app.observe.masks import Masks
from app.serving import http_protocol
from app.settings import mongodb_url
from app.users import routes
from app.users.listing import Listing
from app.users.model import NewUser

SIZE = 4_000
SIZE_OF = {"e-mails": 250}
"""Where what is much longer is refused unread."""
TIMES = 8
LEAST = 0.0002
"""Seconds below which a machine's own noise is larger."""


def typed(text: str) -> None:
    headers = [(b"content-type", text.encode()), (b"content-length", b"1")]
    media_type.require_json(Request({"type": "http", "method": "POST", "headers": headers}))


def email(text: str) -> None:
    for _ in range(20):  # a bulk has a thousand of them
        with contextlib.suppress(ValidationError):
            NewUser.model_validate({"email": text, "name": "Ada"})


def cookie(text: str) -> None:
    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        assert Request(scope).cookies["b"] == "c"

    async def never(*_: object) -> NoReturn:
        raise AssertionError

    headers = [(b"cookie", f'a="{text}"'.encode()), (b"cookie", b"b=c")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(middleware.Context(read, AccessLog("off").write)(scope, never, never))


MASKS = Masks({"o", "a-key-12", "a-long-key-of-somebody"})
READERS: dict[str, Callable[[str], object]] = {
    "app.http.context._SANE_ID": lambda text: context.sane_id(text.encode()),
    "app.http.middleware._TRACEPARENT": lambda text: middleware.follow(text.encode()),
    "app.http.etags._LIST": etags.versions,
    "app.http.etags._TAG": lambda text: etags.unchanged(text, '"3"'),
    "app.serving.http_protocol._END": lambda text: http_protocol._END.search(text.encode()),
    "app.serving.http_protocol._REQUEST_ID": lambda text: http_protocol._REQUEST_ID.search(text.encode()),
    "app.http.media_type._JSON": typed,
    "app.observe.logs._CONTROL": lambda text: logs._CONTROL.sub("?", text),
    "app.observe.masks": MASKS,  # of whatever is logged, a caller's path say
    "app.settings.mongodb_url": mongodb_url.masked,  # by way of app.observe.masks
    "a user's id": TypeAdapter(routes.UserId).validate_python,
    "a filter's e-mail": lambda text: Listing(email=text),
    "a cursor": lambda text: Listing(cursor=text).query(),
    "a user's name": lambda text: NewUser(email="ada@example.org", name=text),
    "e-mails": email,
    "a cookie": cookie,
}

STARTS = (
    "",
    "x",
    "mongodb://",
    "mongodb:/x@",
    "password=",
    '"',
    'W/"',
    "00-" + "0" * 32 + "-",
    "application/",
    "\r\nx-request-id:",
    '"a" <',
)
REPEATED = (
    "\\",
    "\\1",
    " ",
    '"',
    ",",
    "a",
    ", ",
    '" ',
    '"a",',
    "a ",
    "a.",
    "<",
    '"<',
    "W/",
    "-",
    "+",
    ";",
    "[",
    "://",
    ":",
    "mongodb://",
    "\r\nx-request-id: ",
    "\n",
)
ENDS = ("", "x", '"', "@example.org")


def seconds(read: Callable[[str], object], text: str) -> float:
    """Of the processor, at best."""

    def once() -> float:
        started = time.process_time()
        with contextlib.suppress(Problem, ValidationError):
            read(text)
        return time.process_time() - started

    return min(once() for _ in range(3))


@pytest.mark.parametrize("reader", READERS)
def test_twice_the_input_takes_no_more_than_twice_the_time(reader: str) -> None:
    """Doubled three times, with room for noise: what takes quadratic time needs 64 times as much."""
    read, size = READERS[reader], SIZE_OF.get(reader, SIZE)
    for start, repeated, end in itertools.product(STARTS, REPEATED, ENDS):

        def text(size: int, start: str = start, repeated: str = repeated, end: str = end) -> str:
            return start + (repeated * size)[:size] + end

        long = seconds(read, text(size * TIMES))
        if long > LEAST * TIMES * 3:
            assert long < max(LEAST, seconds(read, text(size))) * TIMES * 3, (start, repeated, end)
