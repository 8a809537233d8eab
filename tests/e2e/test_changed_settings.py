"""Settings that change while the stack runs, and callers who must not notice."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from load import Callers
from whole_stack import Stack, until

KEY = "first-key"
PERSON = {"name": "Ada"}


@pytest.fixture
def settled(stack: Stack) -> Iterator[Stack]:
    """The stack, which afterwards has its usual settings again."""
    driver = stack.stats()["driver"]
    yield stack
    stack.up("--driver", driver)
    stack.wait_for_workers()


def create(client: httpx.Client, key: str = KEY) -> httpx.Response:
    person = PERSON | {"email": f"{uuid.uuid4().hex}@example.org"}
    return client.post("/users", json=person, headers={"X-API-Key": key, "Connection": "close"})


def other_address() -> str:
    """One of this machine's that isn't loopback."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return each.address
    pytest.skip("this machine has no other address")


def lets_in(stack: Stack, address: str) -> bool:
    try:
        socket.create_connection((address, stack.layout.http.number), 2).close()
    except OSError:
        return False
    return True


def test_a_key_is_added_and_removed_while_people_write(settled: Stack) -> None:
    stack, driver, address = settled, settled.stats()["driver"], other_address()
    nginx = stack.nginx()
    assert not lets_in(stack, address)
    with Callers(stack, create, callers=4) as callers:
        stack.up("--driver", driver, API_KEY=KEY)
        assert create(stack.http, "another").status_code == 401
        assert lets_in(stack, address)
        callers.wait_for(201)
        stack.up("--driver", driver)
        assert not lets_in(stack, address)
        callers.wait_for(201)
    assert set(callers.outcomes) == {201}
    assert stack.nginx() == nginx
