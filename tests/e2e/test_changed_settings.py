"""Settings that change while the stack runs, and callers who must not notice."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator

import httpx
import psutil
import pytest
from load import Callers
from whole_stack import Stack, switch_venv

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


def test_a_key_in_a_file_that_is_named_from_here_is_rotated(settled: Stack) -> None:
    stack, driver = settled, settled.stats()["driver"]
    for key in ("first-key", "second-key"):
        (stack.home / "key").write_text(key)  # `script` runs there
        stack.up("--driver", driver, API_KEY_FILE="key")
        stack.wait_for_workers()
        assert create(stack.http, key).status_code == 201
    assert create(stack.http, "first-key").status_code == 401
    (stack.home / "key").unlink()


def test_settings_that_the_api_refuses_at_a_reload_are_no_success(settled: Stack) -> None:
    stack, driver = settled, settled.stats()["driver"]
    real = stack.statistics.rename(stack.statistics.with_name("real"))
    stack.statistics.symlink_to(real)
    try:
        done = stack.script("up.sh", "-d", "--driver", driver, MAX_POOL_SIZE="40")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert (
            "up: the API goes on with its old settings, having refused the changed ones: sluice: STATS_" in done.stderr
        )
        assert stack.stats()["pool_config"]["max_pool_size"] == 100
    finally:
        stack.statistics.unlink()
        real.rename(stack.statistics)
    stack.up("--driver", driver, MAX_POOL_SIZE="40")
    stack.wait_for_workers()
    assert stack.stats()["pool_config"]["max_pool_size"] == 40


def test_a_preloaded_application_gets_changed_settings_as_well(settled: Stack) -> None:
    stack, driver = settled, settled.stats()["driver"]
    for settings in ({"PRELOAD": "true"}, {"PRELOAD": "true", "MAX_POOL_SIZE": "40"}, {"MAX_POOL_SIZE": "30"}):
        stack.up("--driver", driver, **settings)
        stack.wait_for_workers()
        assert stack.stats()["pool_config"]["max_pool_size"] == int(settings.get("MAX_POOL_SIZE", 100))


def test_a_changed_graceful_timeout_costs_nobody_a_request(settled: Stack) -> None:
    stack, driver = settled, settled.stats()["driver"]
    master = stack.pid("api")
    with Callers(stack, create, callers=4) as callers:
        stack.up("--driver", driver, GRACEFUL_TIMEOUT="20")
        callers.wait_for(201)
    assert set(callers.outcomes) == {201}
    assert stack.pid("api") == master


def test_other_packages_and_other_code_cost_nobody_a_request(settled: Stack) -> None:
    stack, driver = settled, settled.stats()["driver"]
    master, old = stack.pid("api"), set(stack.wait_for_workers().values())
    venv = (stack.home / "venv").resolve()
    another = switch_venv(stack.home, "another", venv, (venv / "locks.sha256").read_text().split()[0])
    try:
        with Callers(stack, create, callers=4) as callers:
            stack.up("--driver", driver)
            assert not old & {process.pid for process in stack.processes()}
            callers.wait_for(201)
        assert set(callers.outcomes) == {201}
        assert stack.pid("api") != master
        assert psutil.Process(stack.pid("api")).cmdline()[0] == str(another / "bin/python")
        assert venv.exists()  # the process manager runs on it
    finally:
        (stack.home / "venv").unlink()
        (stack.home / "venv").symlink_to(venv)


def test_nginx_goes_first_where_connections_are_to_be_kept_for_less_long(settled: Stack) -> None:
    stack, driver = settled, settled.stats()["driver"]

    def reloaded(**settings: str) -> list[str]:
        done = stack.script("up.sh", "-d", "--driver", driver, **settings)
        assert done.returncode == 0, done.stderr
        return [line.split()[1] for line in done.stdout.splitlines() if line.endswith("reloading changed settings")]

    assert reloaded(KEEP_ALIVE="10") == ["api:", "nginx:"]
    assert reloaded(KEEP_ALIVE="3") == ["nginx:", "api:"]
    # Others are let in last, and shut out first.
    assert reloaded(KEEP_ALIVE="2", API_KEY=KEY) == ["nginx:", "api:", "nginx:"]
    assert reloaded(KEEP_ALIVE="4") == ["nginx:", "api:", "nginx:"]
    upstream = stack.home / "nginx/conf/upstream_connections.conf"
    assert "keepalive_timeout 3200ms;" in upstream.read_text()
