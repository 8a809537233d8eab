"""One drill, from a whole stack to a whole stack."""

from __future__ import annotations

import asyncio
import time

from drill.drills import Drill
from drill.figures import figures
from drill.ledger import Audit
from drill.load import Load
from drill.outcome import Outcome
from drill.service import DrillError, Service
from drill.truth import Witness
from stack.home import StackError

BEFORE = 3.0
"""Seconds of the usual load before anything fails, and again after everything is mended."""
STEADY_WITHIN = 60.0


async def run(drill: Drill, service: Service) -> Outcome:
    """Never raises for what the drill finds; `DrillError` where there is no stack to hurt."""
    await asyncio.to_thread(lambda: service.up(**drill.settings))
    await service.wait_until_whole()
    await asyncio.to_thread(service.forget)
    load = Load(
        service.url, callers=drill.callers, rate=drill.rate, keeps_connections=drill.keeps_connections,
        arriving=drill.arriving,
    )  # fmt: skip
    witness = Witness(service.api_url, service.url, service.prometheus_url)
    error = None
    async with load, witness:
        trouble = time.monotonic()
        try:
            if not drill.expects_failures and not await load.steady(BEFORE, STEADY_WITHIN):
                raise DrillError(f"requests fail before anything is broken: {sorted(load.causes)[:3]}")
            trouble = time.monotonic()
            await drill.fault(service, load)
            if not drill.expects_failures and not await load.steady(BEFORE, STEADY_WITHIN):
                raise DrillError(f"requests still fail {STEADY_WITHIN:.0f} s after everything is mended")
        except (DrillError, StackError) as problem:
            error = str(problem)
    audit = Audit(load.ledger.acknowledged, [], [], 0)
    try:
        await service.wait_until_whole()
        audit = load.ledger.audit(await asyncio.to_thread(service.documents))
    except DrillError as problem:
        error = error or str(problem)
    return Outcome(
        drill, service.driver, figures(load, trouble), audit, load.ledger.wrong, sorted(load.causes)[:10],
        load.notes, witness, load.series, error,
    )  # fmt: skip
