"""Requests that readers of HTTP may understand differently, byte by byte, and what is answered to each.

A message ends with what its author would like to be taken for a request of its own, `SMUGGLED`, where it has room for
that; `ask` sends an honest request, `FOLLOWING`, behind it. All three have an id, with a mark that no other test's has:
by it one sees whose an answer is. Expected are the statuses of all answers in their order, which through nginx and past
it may differ. One that ends with `FOLLOWED` has the following request's own answer at its end; after any other the
connection is closed, or waits for more of a message that isn't whole (`waits`).

nginx takes a line feed alone for a line's end (RFC 9112, section 2.2), leaves out a field that is none, and answers
HTTP/0.9 (0: a body without a head). None of that leads anywhere: what it hands on, it writes anew. The worker asks for
no Host: it answers nobody but nginx, and names none itself.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

MARK = b"????????"
"""Where `ask` puts a mark of this length."""
SMUGGLED = b"GET /smuggled-%b HTTP/1.1\r\nHost: x\r\nX-Request-ID: smuggled-%b\r\n\r\n" % (MARK, MARK)
FOLLOWING = b"GET /users?limit=0 HTTP/1.1\r\nHost: x\r\nX-Request-ID: following-%b\r\nConnection: close\r\n\r\n" % MARK
"""Its answer is a problem of the API's, whose body has the id, too, which nginx doesn't write."""
FOLLOWED = 422
OWN = b"Host: x\r\nX-Request-ID: message-%b\r\n" % MARK
LENGTH = b"Content-Length: %d\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST = b"0\r\n\r\n"
WAIT = 1.0
"""Seconds without a byte after which more is waited for."""


class Raw(NamedTuple):
    """A message, and the statuses that it is answered with: through nginx, and past it."""

    sent: bytes
    through: str
    past: str


def get(fields: bytes = b"", body: bytes = b"", *, line: bytes = b"GET /users?limit=1 HTTP/1.1\r\n") -> bytes:
    return line + OWN + fields + b"\r\n" + body


def asked(line: bytes, fields: bytes = OWN) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def sized(fields: bytes = b"", body: bytes = SMUGGLED) -> bytes:
    return get(fields + LENGTH % len(body), body)


def chunks(text: bytes, fields: bytes = b"") -> bytes:
    """A message with these chunks, or what are to be some."""
    return get(fields + CHUNKED, text)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


WEBSOCKET = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
TERMINATED = LAST + SMUGGLED

UPGRADES = {
    "websocket": Raw(sized(WEBSOCKET), "200 422", "200 422"),
    "h2c": Raw(sized(H2C), "200 422", "200 422"),
    "h2c, chunked": Raw(chunks(chunk(SMUGGLED) + LAST, H2C), "200 422", "200 422"),
    "unknown": Raw(sized(b"Connection: upgrade\r\nUpgrade: x\r\n"), "200 422", "200 422"),
    "not in Connection": Raw(sized(b"Upgrade: h2c\r\n"), "200 422", "200"),
    "several": Raw(sized(b"Connection: upgrade\r\nUpgrade: h2c, websocket, TLS/1.0\r\n"), "200 422", "200 422"),
    "HTTP/2 at once": Raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, "400", "400"),
    "CONNECT": Raw(asked(b"CONNECT x:80 HTTP/1.1") + SMUGGLED, "400", "501"),
    "CONNECT to a path": Raw(asked(b"CONNECT /users HTTP/1.1", OWN + LENGTH % len(SMUGGLED)) + SMUGGLED, "405", "501"),
    "TRACE with a body": Raw(
        asked(b"TRACE /users HTTP/1.1", OWN + LENGTH % len(SMUGGLED)) + SMUGGLED, "405", "405 422"
    ),
}
LENGTHS = {
    "CL.TE": Raw(get(LENGTH % len(TERMINATED) + CHUNKED, TERMINATED), "400", "400"),
    "TE.CL": Raw(get(CHUNKED + LENGTH % 4, chunk(SMUGGLED) + LAST), "400", "400"),
    "TE.TE: identity behind": Raw(get(CHUNKED + b"Transfer-Encoding: identity\r\n", TERMINATED), "400", "400"),
    "TE.TE: chunked twice": Raw(get(CHUNKED + CHUNKED, TERMINATED), "400", "400"),
    "TE.TE: two in one": Raw(get(b"Transfer-Encoding: chunked, identity\r\n", TERMINATED), "501", "400"),
    "TE: identity": Raw(get(b"Transfer-Encoding: identity\r\n" + LENGTH % len(SMUGGLED), SMUGGLED), "501", "400"),
    "TE: gzip, chunked": Raw(get(b"Transfer-Encoding: gzip, chunked\r\n", TERMINATED), "501", "501"),
    "TE: xchunked": Raw(get(b"Transfer-Encoding: xchunked\r\n", TERMINATED), "501", "400"),
    "TE: quoted": Raw(get(b'Transfer-Encoding: "chunked"\r\n', TERMINATED), "501", "400"),
    "TE: vertical tab": Raw(get(b"Transfer-Encoding: \x0bchunked\r\n", TERMINATED), "501", "400"),
    "TE: semicolon": Raw(get(b"Transfer-Encoding: chunked;q=1\r\n", TERMINATED), "501", "400"),
    "TE: nothing": Raw(get(b"Transfer-Encoding:\r\n" + LENGTH % len(SMUGGLED), SMUGGLED), "501", "400"),
    "TE: blank before the colon": Raw(get(b"Transfer-Encoding : chunked\r\n", TERMINATED), "400", "400"),
    "TE: in capitals": Raw(get(b"TRANSFER-ENCODING: CHUNKED\r\n", chunk(SMUGGLED) + LAST), "200 422", "200 422"),
    "TE: tab": Raw(get(b"Transfer-Encoding:\tchunked\t\r\n", chunk(SMUGGLED) + LAST), "501", "400"),
    "TE: underscore": Raw(
        get(b"Transfer_Encoding: chunked\r\n" + LENGTH % len(SMUGGLED), SMUGGLED), "200 422", "200 422"
    ),
    "TE of HTTP/1.0": Raw(asked(b"GET /users?limit=1 HTTP/1.0", OWN + CHUNKED) + TERMINATED, "400", "200"),
    "lengths that differ": Raw(get(LENGTH % 0 + LENGTH % len(SMUGGLED), SMUGGLED), "400", "400"),
    "the same length twice": Raw(get(2 * (LENGTH % len(SMUGGLED)), SMUGGLED), "400", "400"),
    "two lengths in one": Raw(get(b"Content-Length: 0, %d\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "length with a plus": Raw(get(b"Content-Length: +%d\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "length below zero": Raw(get(b"Content-Length: -1\r\n", SMUGGLED), "400", "400"),
    "length in hexadecimal": Raw(get(b"Content-Length: 0x%x\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "length with a blank within": Raw(get(b"Content-Length: 0 %d\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "length beyond 64 bits": Raw(get(b"Content-Length: 18446744073709551616\r\n", SMUGGLED), "400", "400"),
    "length of nothing": Raw(get(b"Content-Length:\r\n", SMUGGLED), "400", "400"),
    "length in other digits": Raw(get("Content-Length: ４\r\n".encode(), SMUGGLED), "400", "400"),
    "length with a fraction": Raw(get(b"Content-Length: %d.0\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "length: blank before the colon": Raw(get(b"Content-Length : %d\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "length: underscore": Raw(get(b"Content_Length: %d\r\n" % len(SMUGGLED)), "200 422", "200 422"),
    "length with zeros before": Raw(get(b"Content-Length: 000%d\r\n" % len(SMUGGLED), SMUGGLED), "200 422", "200 422"),
    "length of too much": Raw(get(b"Content-Length: 9999999\r\n", SMUGGLED), "413 waits", "413"),
}
CHUNKS = {
    "size of no digits": Raw(chunks(b"zz\r\n" + SMUGGLED), "400", "400"),
    "size of nothing": Raw(chunks(b"\r\n" + SMUGGLED), "400", "400"),
    "size below zero": Raw(chunks(b"-1\r\n" + SMUGGLED), "400", "400"),
    "size with 0x": Raw(chunks(b"0x5\r\n12345\r\n" + TERMINATED), "400", "400"),
    "size beyond 64 bits": Raw(chunks(b"10000000000000000\r\n" + SMUGGLED), "400", "400"),
    "blank before the size": Raw(chunks(b" 5\r\n12345\r\n" + TERMINATED), "400", "400"),
    "blank behind the size": Raw(chunks(b"5 \r\n12345\r\n" + LAST), "200 422", "400"),
    "more than its size": Raw(chunks(b"5\r\n" + SMUGGLED + b"\r\n" + LAST), "400", "400"),
    "no line's end behind it": Raw(chunks(b"5\r\n12345" + TERMINATED), "400", "400"),
    "other bytes for a line's end": Raw(chunks(b"5\r\n12345XX" + TERMINATED), "400", "400"),
    "line feeds alone": Raw(chunks(b"5\n12345\n0\n\n"), "200 422", "400"),
    "carriage returns alone": Raw(chunks(b"5\r12345\r0\r\r" + SMUGGLED), "400", "400"),
    "extension": Raw(chunks(b"5;a=b\r\n12345\r\n" + LAST), "200 422", "200 422"),
    "extension with a line feed": Raw(chunks(b"5;a\n12345\r\n" + LAST), "200 422", "400"),
    "extension with a quoted line's end": Raw(chunks(b'5;a="\r\n"\r\n12345\r\n' + LAST), "400", "400"),
    "extension that is long": Raw(chunks(b"5;" + b"a" * 100_000 + b"\r\n12345\r\n" + LAST), "200 422", "200 422"),
    "trailer": Raw(chunks(chunk(b"12345") + b"0\r\nA: b\r\n\r\n"), "200 422", "200 422"),
    "trailer with a length": Raw(chunks(b"0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)), "200 422", "400"),
    "trailer with an upgrade": Raw(chunks(b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), "200 422", "200 422"),
    "trailer that is a request": Raw(chunks(b"0\r\n" + SMUGGLED), "200 422", "400"),
    "trailers that never end": Raw(chunks(b"0\r\n" + b"A: b\r\n" * 20_000 + b"\r\n"), "200 422", "200 422"),
}
FIELDS = {
    "lines end with line feeds": Raw(get().replace(b"\r\n", b"\n"), "200 422", "400"),
    "a line ends with a line feed": Raw(get(b"A: b\nTransfer-Encoding: chunked\r\n", LAST), "200 422", "400"),
    "the head ends with line feeds": Raw(get(b"A: b\n")[:-2] + b"\n", "200 422", "400"),
    "a carriage return alone": Raw(get(b"A: b\rTransfer-Encoding: chunked\r\n", TERMINATED), "400", "400"),
    "two carriage returns": Raw(get(b"A: b\r\r\n"), "200 422", "400"),
    "folded": Raw(get(b"A: b\r\n Transfer-Encoding: chunked\r\n", TERMINATED), "400", "400"),
    "folded length": Raw(get(b"Content-Length:\r\n %d\r\n" % len(SMUGGLED), SMUGGLED), "400", "400"),
    "the first is folded": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b" A: b\r\n" + OWN), "400", "400"),
    "zero byte in a value": Raw(get(b"A: a\0b\r\n"), "400", "400"),
    "zero byte in a name": Raw(get(b"A\0B: b\r\n"), "400", "400"),
    "control character in a value": Raw(get(b"A: \1\r\n"), "400 422", "400"),
    "control character in a name": Raw(get(b"A\1: b\r\n"), "400", "400"),
    "DEL in a value": Raw(get(b"A: \x7f\r\n"), "400 422", "400"),
    "blank in a name": Raw(get(b"A B: c\r\n"), "400", "400"),
    "no colon": Raw(get(b"Anything\r\n"), "200 422", "400"),
    "no name": Raw(get(b": b\r\n"), "400", "400"),
    "letters of no alphabet": Raw(get("A: ü\r\n".encode()), "200 422", "200 422"),
    "a key with an underscore": Raw(
        asked(b"DELETE /users/%b HTTP/1.1" % (b"0" * 24), OWN + b"X_API_Key: schluessel\r\n"), "401 422", "401 422"
    ),
    "hop by hop": Raw(get(b"Connection: X-Request-ID, Host, X-API-Key, keep-alive\r\n"), "200 422", "200 422"),
    "an id that splits lines": Raw(get(b"X-Request-ID: a%0d%0aSet-Cookie: b\r\n"), "200 422", "200 422"),
    "one that is long": Raw(get(b"A: " + b"a" * 100_000 + b"\r\n"), "431", "200 422"),
    "a name that is long": Raw(get(b"a" * 100_000 + b": b\r\n"), "431", "200 422"),
    "a hundred thousand": Raw(get(b"A: b\r\n" * 100_000), "431", "431"),
    "ranges without end": Raw(get(b"Range: bytes=" + b"0-," * 1_000 + b"0-\r\n"), "200 422", "200 422"),
    "an expectation": Raw(sized(b"Expect: 100-continue\r\n"), "100 200 422", "200 422"),
    "an expectation of something else": Raw(sized(b"Expect: a miracle\r\n"), "200 422", "200 422"),
}
LINES = {
    "whole address": Raw(asked(b"GET http://other/users?limit=1 HTTP/1.1"), "200 422", "200 422"),
    "whole address of /metrics": Raw(asked(b"GET http://other/metrics HTTP/1.1"), "404 422", "200 422"),
    "whole address without a path": Raw(asked(b"GET http://other?limit=1 HTTP/1.1"), "307 422", "400"),
    "whole address with a user": Raw(asked(b"GET http://a:b@other/users?limit=1 HTTP/1.1"), "400", "200 422"),
    "another scheme": Raw(asked(b"GET ftp://other/users?limit=1 HTTP/1.1"), "200 422", "200 422"),
    "host and port alone": Raw(asked(b"GET x:80 HTTP/1.1"), "400", "400"),
    "star": Raw(asked(b"OPTIONS * HTTP/1.1"), "400", "404 422"),
    "star of GET": Raw(asked(b"GET * HTTP/1.1"), "400", "404 422"),
    "no slash": Raw(asked(b"GET users HTTP/1.1"), "400", "400"),
    "no address": Raw(asked(b"GET HTTP/1.1"), "400", "400"),
    "two blanks": Raw(asked(b"GET  /users?limit=1  HTTP/1.1"), "200 422", "200 422"),
    "tabs": Raw(asked(b"GET\t/users?limit=1\tHTTP/1.1"), "400", "501"),
    "blank in the address": Raw(asked(b"GET /users?limit=1 /x HTTP/1.1"), "400", "400"),
    "something behind the version": Raw(asked(b"GET /users?limit=1 HTTP/1.1 x"), "400", "400"),
    "HTTP/0.9": Raw(b"GET /users?limit=1\r\n", "0", "400"),
    "HTTP/1.0": Raw(asked(b"GET /users?limit=1 HTTP/1.0"), "200", "200"),
    "HTTP/1.0, kept": Raw(asked(b"GET /users?limit=1 HTTP/1.0", b"Connection: keep-alive\r\n"), "200 422", "200"),
    "HTTP/1.9": Raw(asked(b"GET /users?limit=1 HTTP/1.9"), "200 422", "400"),
    "HTTP/2.0": Raw(asked(b"GET /users?limit=1 HTTP/2.0"), "505", "200"),
    "HTTP/1.11": Raw(asked(b"GET /users?limit=1 HTTP/1.11"), "200 422", "400"),
    "HTTP/1": Raw(asked(b"GET /users?limit=1 HTTP/1"), "400", "400"),
    "http/1.1": Raw(asked(b"GET /users?limit=1 http/1.1"), "400", "400"),
    "another protocol": Raw(asked(b"GET /users?limit=1 RTSP/1.0"), "400", "200"),
    "method in small letters": Raw(asked(b"get /users?limit=1 HTTP/1.1"), "400", "501"),
    "unknown method": Raw(asked(b"BREW /users HTTP/1.1"), "501 422", "501"),
    "method of another protocol": Raw(asked(b"SOURCE /users HTTP/1.1"), "405 422", "405 422"),
    "WebDAV's method": Raw(asked(b"PROPFIND /users HTTP/1.1"), "405 422", "405 422"),
    "method with a zero byte": Raw(asked(b"GE\0T /users HTTP/1.1"), "400", "501"),
    "method that is long": Raw(asked(b"G" * 100_000 + b" /users HTTP/1.1"), "414", "501"),
    "address that is long": Raw(asked(b"GET /" + b"a" * 100_000 + b" HTTP/1.1"), "414", "400"),
    "query that is long": Raw(asked(b"GET /users?city=" + b"a" * 7_000 + b" HTTP/1.1"), "422 422", "422 422"),
    "zero byte in the address": Raw(asked(b"GET /users\0 HTTP/1.1"), "400", "400"),
    "encoded zero byte": Raw(asked(b"GET /users%00 HTTP/1.1"), "400", "404 422"),
    "control character in the address": Raw(asked(b"GET /users\1 HTTP/1.1"), "400", "400"),
    "raw UTF-8": Raw(asked("GET /users?city=München HTTP/1.1".encode()), "400 422", "400"),
    "half a percent": Raw(asked(b"GET /users%2 HTTP/1.1"), "400", "404 422"),
    "percent of no digits": Raw(asked(b"GET /users%zz HTTP/1.1"), "400", "404 422"),
    "encoded line's end": Raw(asked(b"GET /users%0d%0a%0d%0aGET%20/smuggled HTTP/1.1"), "404 422", "404 422"),
    "encoded line's end in a redirect": Raw(
        asked(b"GET /users/?x=%0d%0aSet-Cookie:%20a=b HTTP/1.1"), "307 422", "307 422"
    ),
    "fragment": Raw(asked(b"GET /users?limit=1#x HTTP/1.1"), "200 422", "200 422"),
    "/metrics": Raw(asked(b"GET /metrics HTTP/1.1"), "404 422", "200 422"),
    "/metrics by way of ..": Raw(asked(b"GET /users/../metrics HTTP/1.1"), "404 422", "404 422"),
    "/metrics by way of encoded ..": Raw(asked(b"GET /users/%2e%2e/metrics HTTP/1.1"), "404 422", "404 422"),
    "/metrics by way of an encoded slash": Raw(asked(b"GET /users%2f..%2fmetrics HTTP/1.1"), "404 422", "404 422"),
    "/metrics in other letters": Raw(asked(b"GET /%6detrics HTTP/1.1"), "404 422", "200 422"),
    "/metrics encoded twice": Raw(asked(b"GET /%256detrics HTTP/1.1"), "404 422", "404 422"),
    "/metrics with two slashes": Raw(asked(b"GET //metrics HTTP/1.1"), "404 422", "404 422"),
    "/metrics with a dot": Raw(asked(b"GET /./metrics/. HTTP/1.1"), "404 422", "404 422"),
    "/metrics with an encoded question mark": Raw(asked(b"GET /metrics%3f HTTP/1.1"), "404 422", "404 422"),
    "/metrics with a semicolon": Raw(asked(b"GET /metrics;a HTTP/1.1"), "404 422", "404 422"),
    "/metrics with an encoded line's end": Raw(asked(b"GET /metrics%0a HTTP/1.1"), "404 422", "404 422"),
    "/metrics with a fragment": Raw(asked(b"GET /metrics#/users HTTP/1.1"), "404 422", "200 422"),
    "/metrics with a backslash": Raw(asked(b"GET \\metrics HTTP/1.1"), "400", "400"),
    "above the root": Raw(asked(b"GET /../../etc/passwd HTTP/1.1"), "400", "404 422"),
    "nginx's own page": Raw(asked(b"GET /problem HTTP/1.1"), "404 422", "404 422"),
    "nginx's own page of methods": Raw(asked(b"GET /problem/method HTTP/1.1"), "404 422", "404 422"),
    "a long way of slashes": Raw(asked(b"GET " + b"/" * 7_000 + b"users HTTP/1.1"), "404 422", "404 422"),
}
HOSTS = {
    "none": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b""), "400", "200 422"),
    "two": Raw(asked(b"GET /users?limit=1 HTTP/1.1", OWN + b"Host: y\r\n"), "400", "200 422"),
    "empty": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host:\r\n"), "400", "200 422"),
    "with a path": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: x/y\r\n"), "400", "200 422"),
    "with a blank": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: x y\r\n"), "400", "200 422"),
    "with a comma": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: x, y\r\n"), "400", "200 422"),
    "with a user": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: a@x\r\n"), "200 422", "200 422"),
    "with a senseless port": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: x:99999999\r\n"), "200 422", "200 422"),
    "with dots": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: ..\r\n"), "400", "200 422"),
    "with a zero byte": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: x\0y\r\n"), "400", "400"),
    "of half an address": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: [::1\r\n"), "200 422", "200 422"),
    "in a redirect": Raw(asked(b"GET /users/ HTTP/1.1", b"Host: evil.example\r\n"), "307 422", "307 422"),
    "that is long": Raw(asked(b"GET /users?limit=1 HTTP/1.1", b"Host: " + b"x" * 50_000 + b"\r\n"), "431", "200 422"),
}
PIPELINES = {
    "nothing before": Raw(b"", "422", "422"),
    "empty lines before": Raw(b"\r\n\r\n", "422", "422"),
    "line feeds before": Raw(b"\n\n\n", "422", "422"),
    "zero byte before": Raw(b"\0", "400", "501"),
    "TLS": Raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 60 + b"\r\n\r\n", "400", "501"),
    "two": Raw(get() + get(), "200 200 422", "200 200 422"),
    "fifty": Raw(get() * 50, "200 " * 50 + "422", "200 " * 50 + "422"),
    "HEAD": Raw(asked(b"HEAD /users?limit=1 HTTP/1.1"), "200 422", "200 422"),
    "HEAD of a refusal": Raw(asked(b"HEAD /users?limit=0 HTTP/1.1"), "422 422", "422 422"),
    "a body of a GET": Raw(sized(), "200 422", "200 422"),
    "a body that nobody reads": Raw(
        asked(b"DELETE /nowhere HTTP/1.1", OWN + LENGTH % len(SMUGGLED)) + SMUGGLED, "404 422", "404 422"
    ),
    "a body of a HEAD": Raw(
        asked(b"HEAD /users?limit=1 HTTP/1.1", OWN + LENGTH % len(SMUGGLED)) + SMUGGLED, "200 422", "200 422"
    ),
    "a body of an OPTIONS": Raw(
        asked(b"OPTIONS /users HTTP/1.1", OWN + LENGTH % len(SMUGGLED)) + SMUGGLED, "204 422", "204 422"
    ),
    "a body that is refused unread": Raw(
        asked(b"POST /users HTTP/1.1", OWN + LENGTH % len(SMUGGLED)) + SMUGGLED, "401 422", "401 422"
    ),
    "behind Connection: close": Raw(get(b"Connection: close\r\n") + SMUGGLED, "200", "200"),
    "a body that isn't whole": Raw(get(b"Content-Length: 1000\r\n", SMUGGLED), "waits", "200 waits"),
    "chunks that aren't whole": Raw(chunks(chunk(SMUGGLED) + b"fff\r\n"), "waits", "200 waits"),
}
ALL = {
    f"{kind}: {name}": raw
    for kind, table in {
        "upgrade": UPGRADES,
        "length": LENGTHS,
        "chunk": CHUNKS,
        "field": FIELDS,
        "line": LINES,
        "host": HOSTS,
        "pipeline": PIPELINES,
    }.items()
    for name, raw in table.items()
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ids(self) -> set[str]:
        """By its head, and by its body, if that is a problem."""
        found = {self.headers["x-request-id"]} if "x-request-id" in self.headers else set()
        if self.headers.get("content-type", "").startswith("application/problem+json") and self.body:
            found.add(json.loads(self.body)["request_id"])
        return found


def ask(url: str, message: bytes, mark: str) -> tuple[list[Answer], bool]:
    """Every answer to the message and to what follows it, and whether the server waits for more at last.

    Raises `AssertionError` for bytes that are no answer of HTTP/1.
    """
    address = urlsplit(url)
    received, waits = b"", False
    with socket.create_connection((address.hostname, address.port), timeout=WAIT) as connection:
        with suppress(ConnectionError):  # refused before it was sent whole
            connection.sendall((message + FOLLOWING).replace(MARK, mark.encode()))
        try:
            while piece := connection.recv(1 << 16):
                received += piece
        except TimeoutError:
            waits = True
        except ConnectionError:
            pass
    return list(answers(received, re.findall(rb"(?:^|\n)(HEAD) ", message))), waits


def answers(received: bytes, heads: list[bytes]) -> Iterator[Answer]:
    """`heads`: one for each HEAD, which is the first that is asked."""
    while received:
        if not received.startswith(b"HTTP/"):  # of HTTP/0.9, which has nothing but a body
            yield Answer(0, {}, received)
            return
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, received
        line, *lines = head.decode("latin-1").split("\r\n")
        _, status, _ = line.split(" ", 2)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if status[0] == "1" or status in ("204", "304") or heads:
            body, received = b"", rest
            if status[0] != "1" and heads:
                heads = heads[1:]
        elif "transfer-encoding" in headers:
            size, _, rest = rest.partition(b"\r\n")
            body = b""
            while int(size, 16):
                body += rest[: int(size, 16)]
                size, _, rest = rest[int(size, 16) + 2 :].partition(b"\r\n")
            received = rest[2:]
        elif "content-length" in headers:
            length = int(headers["content-length"])
            assert len(rest) >= length, received
            body, received = rest[:length], rest[length:]
        else:  # ends with the connection
            body, received = rest, b""
        yield Answer(int(status), headers, body)
