"""A rollout that is interrupted, at any moment and by any signal, is undone or finished; nothing is lost meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from load import Callers
from project import ROOT, Project
from traffic import person
from whole_stack import until

pytestmark = pytest.mark.timeout(500)

STARTING, SWITCHING, STOPPING = "new containers beside", "sends requests to the new ones", "stopping the old ones"


@contextmanager
def rollout(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A running one, in a session of its own, as a terminal's foreground job is."""
    process = subprocess.Popen(
        [ROOT / "scripts/rollout.sh", "--no-build"], env=project.environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def reach(process: subprocess.Popen[str], step: str) -> None:
    assert process.stdout is not None
    assert any(step in line for line in iter(process.stdout.readline, "")), f"it ended before {step}"


def follows_the_name(project: Project) -> bool:
    return "api:8000 resolve" in project.compose("exec", "-T", "nginx", "cat", "/run/nginx/conf/upstream.conf")


def answers(project: Project) -> None:
    until(lambda: follows_the_name(project), 20)
    for _ in range(20):
        assert project.http.get("/users", params={"limit": 1}).status_code == 200
    until(lambda: project.http.post("/users", json=person()).status_code == 201, 20)


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGTERM, 0), (signal.SIGINT, 0.7)], ids=["TERM", "INT"])
def test_before_the_new_ones_serve_it_is_undone(project: Project, number: signal.Signals, delay: float) -> None:
    old = project.containers("api")
    with Callers(project, lambda http: http.get("/users", params={"limit": 1})) as reads:
        with rollout(project) as process:
            reach(process, STARTING)
            time.sleep(delay)  # a moment in the middle of a step
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as Ctrl-C does
            else:
                process.send_signal(number)
            assert process.wait(60) == 128 + number
        reads.wait_for(200, times=100)
    assert set(reads.outcomes) == {200}
    assert project.containers("api") == old
    answers(project)


def test_once_the_new_ones_serve_it_is_finished(project: Project) -> None:
    old = project.containers("api")
    with Callers(project, lambda http: http.get("/users", params={"limit": 1})) as reads:
        with rollout(project) as process:
            reach(process, SWITCHING)
            assert process.stdout is not None
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            process.stdout.close()  # the terminal is gone
            os.killpg(process.pid, signal.SIGHUP)
            assert process.wait(120) == 0
        reads.wait_for(200, times=100)
    assert set(reads.outcomes) == {200}
    new = project.containers("api")
    assert len(new) == len(old)
    assert not set(new) & set(old)
    answers(project)


@pytest.mark.parametrize("step", [STARTING, STOPPING])
def test_killed_it_leaves_a_stack_that_answers_and_is_settled_later(project: Project, step: str) -> None:
    count = len(project.containers("api"))
    with rollout(project) as process:
        reach(process, step)
        os.killpg(process.pid, signal.SIGKILL)
    answers(project)
    if step == STARTING:
        project.script("up.sh", "-d")
    else:
        project.script("rollout.sh", "--settle")
    assert len(project.containers("api")) == len(project.compose("ps", "-aq", "api").split()) == count
    answers(project)


def test_two_at_once_are_refused(project: Project) -> None:
    with rollout(project) as process:
        reach(process, STARTING)
        second = project.run(str(ROOT / "scripts/rollout.sh"), "--no-build")
        assert second.returncode == 1
        assert "another rollout is under way" in second.stderr
        process.terminate()
        process.wait(60)
    answers(project)
