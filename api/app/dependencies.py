"""What routes ask for: parameters of these types are filled in by FastAPI."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from app.data.idempotency import Once
from app.http import problems
from app.http.idempotency_key import HEADER, PATTERN
from app.http.problems import Problem
from sluice import Sluice


async def get_sluice(request: Request) -> Sluice:
    """This worker's `Sluice`, which the lifespan has opened."""
    sluice: Sluice = request.app.state.sluice
    return sluice


SluiceDep = Annotated[Sluice, Depends(get_sluice)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        pattern=PATTERN,
        description="A new one for each create, such as a UUID. Who sends it again with the same body gets the first"
        " answer again, and nothing is created twice.",
    ),
]


async def get_once(sluice: SluiceDep, request: Request, key: IdempotencyKey = None) -> Once:
    """The request's work, done once for its key. Raises `Problem` (400) for more than one."""
    if len(request.headers.getlist(HEADER)) > 1:
        raise Problem(problems.BAD_REQUEST, f"{HEADER}: there is more than one; allowed is one")
    query = f"?{request.url.query}" if request.url.query else ""
    seconds = request.app.state.settings.idempotency_key_ttl
    return Once(sluice, key, f"{request.method} {request.url.path}{query}", seconds)


OnceDep = Annotated[Once, Depends(get_once)]
