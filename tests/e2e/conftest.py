"""One stack for all the end-to-end tests, started by up.sh and stopped by down.sh."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from whole_stack import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack. After the last test nothing of it may be left, and nothing else may have been stopped."""
    home = Path(tempfile.mkdtemp(prefix="sluice-e2e-"))
    stack = Stack(home)
    lookalikes = [subprocess.Popen(["bash", "-c", f"exec -a {name} sleep 7200"]) for name in ("gunicorn", "mongod")]
    try:
        stack.up()
        stack.quicken_elections()
        yield stack
        assert stack.torn_lines() == []
        down = stack.script("down.sh", "--purge")
        assert down.returncode == 0, down.stderr
        assert [process.cmdline() for process in stack.processes()] == []
        assert all(process.poll() is None for process in lookalikes), "down.sh stopped what isn't its own"
        assert not stack.layout.shared.exists()
        assert not {path.name for path in home.iterdir()} - {"bin", "venv", "venv.d", "user_ids"}
    finally:
        for process in lookalikes:
            process.kill()
            process.wait()
        if stack.processes():  # a failed test or script: end what is left, the process manager first
            stack.script("down.sh", "--purge")
        for left in stack.processes():
            left.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session", params=["pymongo", "motor"])
def driver(request: pytest.FixtureRequest, stack: Stack) -> str:
    """The driver that the stack runs on while the test does."""
    name = str(request.param)
    if stack.stats()["driver"] != name:
        stack.up("--driver", name)
        stack.wait_for_workers()
    return name


@pytest.fixture(scope="session")
def user_ids(stack: Stack) -> list[str]:
    """A thousand users that no test changes."""
    people = [{"email": f"reader{number}@example.org", "name": f"Reader {number}", "age": 30} for number in range(1000)]
    answer = stack.http.post("/users/bulk", json={"users": people})
    assert answer.status_code == 201, answer.text
    return [item["id"] for item in answer.json()["items"]]
