"""`Idempotency-Key` on the way to a route: one that doesn't take it must not be asked again.

nginx repeats a POST that carries one as it repeats a GET, so a route that would do it twice has to say no before.
"""

from __future__ import annotations

from starlette.types import Scope

from app.http import problems
from app.http.problems import Problem

HEADER = "Idempotency-Key"
PATTERN = r"^[\x21-\x7e]{1,255}$"
_RAW = HEADER.lower().encode()


def refuse(scope: Scope) -> None:
    """Raise `Problem` (400) for a POST with a key, to a route that doesn't take it."""
    if scope["method"] == "POST" and any(name == _RAW for name, _ in scope["headers"]):
        raise Problem(problems.BAD_REQUEST, f"{HEADER}: not allowed here, since this isn't known to happen only once")
