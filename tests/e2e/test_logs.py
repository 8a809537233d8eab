"""The greps of the guide, as typed, on the log of a real run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading

import pytest
from whole_stack import Stack, kill, until

POOL = 'grep "connection pool" api.log'
SLOW = """grep "Execution time" api.log | awk '$NF > 1.0'"""
ERRORS = 'grep "ERROR" api.log'


def grep(stack: Stack, command: str) -> list[str]:
    done = subprocess.run(["bash", "-c", command], cwd=stack.layout.logs, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_the_pools_events_are_found(stack: Stack, driver: str) -> None:
    assert any(f"connection pool ready: {driver} driver" in line for line in grep(stack, POOL))


def test_an_operation_of_more_than_a_second_is_found(stack: Stack, driver: str, user_ids: list[str]) -> None:
    stack.wait_until_whole()
    request_id = f"slow-{driver}"
    primary = stack.pid(f"mongod-{stack.wait_for_primary()}")
    os.kill(primary, signal.SIGSTOP)
    resume = threading.Timer(1.2, os.kill, (primary, signal.SIGCONT))
    resume.start()
    try:
        answer = stack.http.get(f"/users/{user_ids[0]}", headers={"X-Request-ID": request_id})
    finally:
        resume.join()
    assert answer.status_code == 200
    until(lambda: any(request_id in line for line in grep(stack, SLOW)))
    (line,) = (line for line in grep(stack, SLOW) if request_id in line)
    assert re.search(r"Execution time of users\.find_one for GET /users/\{id\} \(seconds\): 1\.\d{3}$", line)
    # One that was quick enough isn't found, though it was logged.
    assert all(float(line.split()[-1]) > 1 for line in grep(stack, SLOW))


def test_errors_are_found(stack: Stack) -> None:
    killed = next(iter(stack.wait_for_workers().values()))
    kill(killed)
    until(lambda: any(str(killed) in line for line in grep(stack, ERRORS)))
    stack.wait_for_workers(without={killed})


def test_no_line_is_torn(stack: Stack) -> None:
    lines = stack.api_log.read_text().splitlines()
    assert len({worker for line in lines for worker in re.findall(r"\| worker=(\d+) ", line)}) >= 2
    assert stack.torn_lines() == []


@pytest.mark.parametrize("report", [("pool",), ("slow", "--over", "1"), ("errors",)])
def test_logs_sh_reads_the_running_stacks_log(stack: Stack, report: tuple[str, ...]) -> None:
    done = stack.script("logs.sh", *report)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
