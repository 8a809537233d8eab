"""`Idempotency-Key`: what it names happens once, whoever repeats it, and whenever; on both drivers."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from stack.replica_set import ReplicaSet
from tests.app.conftest import Service

NEW = {"email": "ada@example.org", "name": "Ada"}


def with_key(key: str = "") -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def same(first: httpx.Response, second: httpx.Response) -> bool:
    """Whether they are one answer, but for what belongs to a request."""
    headers = ("location", "etag", "content-type")
    return (first.status_code, first.json(), [first.headers.get(name) for name in headers]) == (
        second.status_code, second.json(), [second.headers.get(name) for name in headers],
    )  # fmt: skip


async def count(service: Service) -> int:
    return len((await service.http.get("/users", params={"limit": 100})).json()["items"])


async def test_a_create_that_is_repeated_gets_its_first_answer(service: Service) -> None:
    headers = with_key()
    first = await service.http.post("/users", json=NEW, headers=headers)
    assert first.status_code == 201
    await service.http.patch(first.headers["location"], json={"name": "Other"}, headers={"If-Match": "*"})
    again = await service.http.post("/users", json=dict(reversed(NEW.items())), headers=headers)
    assert same(first, again)
    assert await count(service) == 1


async def test_a_key_belongs_to_one_request(service: Service) -> None:
    headers = with_key()
    assert (await service.http.post("/users", json=NEW, headers=headers)).status_code == 201
    for path, body in (("/users", {**NEW, "name": "Bob"}), ("/users/bulk", {"users": [NEW]})):
        refused = await service.http.post(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["type"]) == (422, "/problems/idempotency-key-reused")
    other = await service.http.post("/users", json={**NEW, "email": "b@example.org"}, headers=headers)
    assert other.status_code == 422
    assert await count(service) == 1


async def test_another_key_is_another_request(service: Service) -> None:
    assert (await service.http.post("/users", json=NEW, headers=with_key())).status_code == 201
    assert (await service.http.post("/users", json=NEW, headers=with_key())).status_code == 409


async def test_what_failed_is_not_kept(service: Service) -> None:
    headers = with_key()
    assert (await service.http.post("/users", json=NEW)).status_code == 201
    assert (await service.http.post("/users", json=NEW, headers=headers)).status_code == 409
    (user,) = (await service.http.get("/users")).json()["items"]
    await service.http.delete(f"/users/{user['id']}")
    assert (await service.http.post("/users", json=NEW, headers=headers)).status_code == 201


async def test_a_bulk_keeps_the_outcome_of_each(service: Service) -> None:
    assert (await service.http.post("/users", json=NEW)).status_code == 201
    people: list[dict[str, Any]] = [
        {"email": "a@example.org", "name": "A"}, NEW, {"email": "a@example.org", "name": "A"}, {"email": "no"},
    ]  # fmt: skip
    headers = with_key()
    first = await service.http.post("/users/bulk", json={"users": people}, headers=headers)
    assert (first.status_code, [item["status"] for item in first.json()["items"]]) == (207, [201, 409, 409, 422])
    assert same(first, await service.http.post("/users/bulk", json={"users": people}, headers=headers))
    without = await service.http.post("/users/bulk", json={"users": [NEW]})
    assert without.json()["items"][0]["detail"] == first.json()["items"][1]["detail"]
    assert await count(service) == 2


@pytest.mark.parametrize("path", ["/users", "/users/bulk"])
async def test_repeats_at_the_same_time_get_one_answer(service: Service, path: str) -> None:
    headers = with_key()
    body = NEW if path == "/users" else {"users": [NEW, {"email": "b@example.org", "name": "Bob"}]}
    answers = await asyncio.gather(*(service.http.post(path, json=body, headers=headers) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [201] * 20
    assert all(same(answers[0], answer) for answer in answers)
    assert await count(service) == (1 if path == "/users" else 2)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_a_key_is_printable_and_short(service: Service, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode())]
    refused = await service.http.post("/users", json=NEW, headers=headers)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "header.Idempotency-Key"


async def test_a_route_that_takes_no_key_is_not_asked_with_one(service: Service) -> None:
    asked = []

    @service.app.post("/mails")
    async def send() -> None:
        asked.append(1)

    refused = await service.http.post("/mails", headers=with_key())
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/bad-request")
    assert "Idempotency-Key" in refused.json()["detail"]
    assert not asked
    assert (await service.http.post("/mails")).status_code == 200


async def test_a_key_is_forgotten_in_time(service: Service, replica_set: ReplicaSet) -> None:
    await service.http.post("/users", json=NEW, headers=with_key("kept"))
    database = service.app.state.settings.database_name
    with MongoClient[dict[str, Any]](replica_set.url, tz_aware=True) as client:
        keys = client[database]["idempotency_keys"]
        record = keys.find_one({"_id": "kept"})
        assert record is not None
        day = timedelta(seconds=service.app.state.settings.idempotency_key_ttl)
        assert abs(record["expires_at"] - datetime.now(UTC) - day) < timedelta(minutes=5)
        assert keys.index_information()["expires_at"]["expireAfterSeconds"] == 0
