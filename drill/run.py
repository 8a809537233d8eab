"""One drill, from a whole stack to a whole stack."""

from __future__ import annotations

import asyncio
import subprocess
import time

import aiohttp
import psutil
from pymongo.errors import PyMongoError

from drill.drills import Drill
from drill.figures import figures
from drill.ledger import Audit
from drill.load import Load
from drill.outcome import Outcome
from drill.service import DrillError, Service
from drill.truth import Witness
from stack.home import StackError
from stack.supervise import LOST

BEFORE = 3.0
"""Seconds of the usual load before anything fails, and again after everything is mended."""
STEADY_WITHIN = 60.0
FAILURES = (
    aiohttp.ClientError,
    DrillError,
    StackError,
    PyMongoError,
    subprocess.SubprocessError,
    psutil.Error,
    ValueError,
    LookupError,
    *LOST,
)
"""How one drill fails, which doesn't keep the others from it."""
TAKEN_BACK = "unacknowledged writes were seen, and gone with their primary"


async def run(drill: Drill, service: Service) -> Outcome:
    """What came of it. What it fails with itself is its `error`, also where there is no stack to hurt."""
    load = Load(
        service.url, callers=drill.callers, rate=drill.rate, keeps_connections=drill.keeps_connections,
        arriving=drill.arriving,
    )  # fmt: skip
    witness = Witness(service.api_url, service.url, service.prometheus_url, dict(service.alerts))
    trouble, term = 0.0, None
    errors: list[str] = []
    audit: Audit | None = None
    try:
        await asyncio.to_thread(lambda: service.up(**drill.settings))
        await service.wait_until_whole()
        await asyncio.to_thread(service.forget)
        term = await asyncio.to_thread(service.term)
        async with load, witness:
            trouble = time.monotonic()
            try:
                if not drill.expects_failures and not await load.steady(BEFORE, STEADY_WITHIN):
                    raise DrillError(f"requests fail before anything is broken: {sorted(load.causes)[:3]}")
                trouble = time.monotonic()
                await drill.fault(service, load)
                if not drill.expects_failures and not await load.steady(BEFORE, STEADY_WITHIN):
                    raise DrillError(f"requests still fail {STEADY_WITHIN:.0f} s after everything is mended")
            except FAILURES as problem:
                errors.append(_said(problem))
    except FAILURES as problem:
        errors.append(_said(problem))
    service.alerts |= dict.fromkeys(drill.alerts, time.monotonic())
    wrong = load.ledger.wrong
    if load.started:
        try:
            await service.wait_until_whole()
            audit = load.ledger.audit(await asyncio.to_thread(service.documents))
            if term == await asyncio.to_thread(service.term):
                wrong = wrong + load.ledger.taken_back
            elif load.ledger.taken_back:
                load.notes[TAKEN_BACK] = len(load.ledger.taken_back)
        except FAILURES as problem:
            errors.append(_said(problem))
    return Outcome(
        drill, service.driver, figures(load, trouble), audit, wrong, sorted(load.causes)[:10],
        load.notes, witness, load.series, errors[0] if errors else None,
    )  # fmt: skip


def _said(problem: BaseException) -> str:
    return f"{problem}" if isinstance(problem, DrillError | StackError) else f"{type(problem).__name__}: {problem}"
