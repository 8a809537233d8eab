"""Requests of every kind, right and wrong."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

CALLERS = 4


def person() -> dict[str, Any]:
    return {"email": f"{uuid.uuid4().hex}@example.org", "name": "Ada"}


@contextmanager
def traffic(url: str) -> Iterator[None]:
    """From a few callers at once, until the block ends."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=20) as client:
            while not over.is_set():
                created = client.post("/users/bulk", json={"users": [person() for _ in range(10)]}).json()
                places = [f"/users/{item['id']}" for item in created["items"]]
                for place in places:
                    client.get(place)
                client.get("/users", params={"limit": 5})
                client.get(f"/users/{'0' * 24}")
                client.get("/users/wrong")
                new = person()
                places.append(client.post("/users", json=new).headers["location"])
                client.post("/users", json=new)
                client.patch(places[0], json={"age": 36}, headers={"If-Match": "*"})
                for place in places:
                    client.delete(place)

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            yield
        finally:
            over.set()
        for caller in callers:
            caller.result()
