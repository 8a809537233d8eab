"""What is known about the request that is being served; read by the logs and the error pages."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The W3C trace id, only where the caller sent one."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._\-:/+=]{1,128}")


def sane_id(given: bytes | None) -> bytes:
    """The caller's request id if it is harmless in a log, else a new one."""
    return given if given and _SANE_ID.fullmatch(given) else b"%032x" % random.getrandbits(128)
