"""What routes ask for: parameters of these types are filled in by FastAPI."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from sluice import Sluice


async def get_sluice(request: Request) -> Sluice:
    """This worker's `Sluice`, which the lifespan has opened."""
    sluice: Sluice = request.app.state.sluice
    return sluice


SluiceDep = Annotated[Sluice, Depends(get_sluice)]
