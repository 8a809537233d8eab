"""To which part of the service a sampled stack belongs."""

from __future__ import annotations

import re

PARTS = (
    ("uvicorn", r"uvicorn/"),
    ("FastAPI and Starlette", r"fastapi/|starlette/"),
    ("pydantic", r"pydantic/"),
    ("PyMongo and BSON", r"pymongo/|bson/"),
    ("HTTP metrics", r"prometheus_\w+/|app/observe/(metrics|http_metrics|metric_\w+)\.py"),
    ("app: middleware, logs", r"app/(http|observe|serving)/"),
    ("app: users", r"app/"),
    ("sluice: coalescing", r"sluice/coalescing/"),
    ("sluice: timings, deadlines", r"sluice/(timings|deadline)\.py|sluice/statistics/"),
    ("sluice: pools", r"sluice/"),
    ("asyncio", r"asyncio/"),
)
REST = "event loop (uvloop, system calls)"
"""Whatever the interpreter's frames don't tell apart: uvloop is compiled."""
_FRAME = re.compile(r"^(.*) \((.+?)(?::\d+)?\)$")


def attribute(stack: str) -> tuple[str, str]:
    """The part and the function to which a stack (`function (file:line);…`, innermost last) belongs."""
    frame = _FRAME.match(stack.rpartition(";")[2])
    if frame is None:
        return REST, stack.rpartition(";")[2]
    function, file = frame.groups()
    short = "/".join(file.split("/")[-2:])
    for part, pattern in PARTS:
        if re.search(rf"(?:^|/)(?:{pattern})", file) and not (part == "asyncio" and "runners" in file):
            return part, f"{function} ({short})"
    return REST, f"{function} ({short})"
