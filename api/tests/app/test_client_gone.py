"""Whoever asked has gone: what was given up for that is no error, and what went wrong by itself is still told."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, Request

from app.dependencies import SluiceDep
from app.http.middleware import LIMIT
from app.observe import http_metrics
from tests.app.conftest import Service
from tests.conftest import until


async def _gone(request: Request) -> None:
    """Until whoever asked has gone."""
    request.app.state.asked.set()
    await until(lambda: request.scope[LIMIT].abandoned)


Gone = Annotated[None, Depends(_gone)]


async def ask_and_go(service: Service, method: str, path: str) -> None:
    service.app.state.asked = asked = asyncio.Event()
    address = httpx.URL(str(service.http.base_url))
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n".encode())
    await asked.wait()
    writer.close()


def answered(path: str) -> dict[str, float]:
    """How often with which status."""
    return {
        sample.labels["status"]: sample.value
        for metric in http_metrics.REQUESTS.collect()
        for sample in metric.samples
        if sample.name == "http_requests_total" and sample.labels["handler"] == path
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_mistake_of_ours_is_told(service: Service, caplog: pytest.LogCaptureFixture, method: str) -> None:
    @service.app.api_route("/mistake", methods=[method])
    async def mistake(gone: Gone) -> None:
        raise KeyError("nobody thought of it")

    await ask_and_go(service, method, "/mistake")
    await until(lambda: "nobody thought of it" in caplog.text)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"{method} /mistake failed"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_given_up_is_no_error(service: Service, caplog: pytest.LogCaptureFixture, method: str) -> None:
    @service.app.api_route("/work", methods=[method])
    async def work(gone: Gone, sluice: SluiceDep, request: Request) -> None:
        await sluice.collection("things").find_one({})

    await ask_and_go(service, method, "/work")
    await until(lambda: bool(answered("/work")))
    assert answered("/work") == {"4xx": 1}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
