"""The stack starts a second time, however it was stopped, and by whomever."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine import Engine
from project import ROOT, Project
from traffic import person
from whole_stack import until

pytestmark = pytest.mark.timeout(500)  # the first test pays for the engine, the images and the start

SERVICES = {"api", "mongo1", "mongo2", "mongo3", "nginx", "nginx-exporter", "prometheus"}


@pytest.fixture(scope="module")
def user(project: Project) -> Any:
    created = project.http.post("/users", json=person())
    assert created.status_code == 201, created.text
    return created.json()


def serves(project: Project, user: Any) -> None:
    """Everything runs and is healthy, what was stored is there, and more can be."""

    def healthy() -> bool:
        states = {
            container["Config"]["Labels"]["com.docker.compose.service"]: container["State"]
            for container in project.inspect(*project.compose("ps", "-aq", *SERVICES).split())
        }
        ill = {
            service: (state["Status"], state.get("Health", {}).get("Status"))
            for service, state in states.items()
            if not state["Running"] or state.get("Health", {"Status": "healthy"})["Status"] != "healthy"
        }
        assert not ill, ill
        return True

    until(healthy, 120)
    until(lambda: set(project.ids()) == SERVICES, 60)  # the one-shots have ended
    until(project.whole, 60)
    assert project.http.get(f"/users/{user['id']}").json() == user
    assert project.http.post("/users", json=person()).status_code == 201


def test_everything_restarted_at_once(project: Project, user: Any) -> None:
    project.compose("restart")
    serves(project, user)


def test_some_killed_and_started(project: Project, user: Any) -> None:
    some = ("nginx", "nginx-exporter", "prometheus", project.primary())
    project.compose("kill", *some)
    project.compose("start", *some)
    serves(project, user)


def test_all_killed_then_in_the_foreground_ended_by_ctrl_c_then_started(
    project: Project, user: Any, tmp_path: Path
) -> None:
    project.compose("kill")
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        foreground = subprocess.Popen(
            ["docker", "compose", "up"], env=project.environment, cwd=ROOT,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: len(project.containers("nginx-exporter")) == 1, 120)  # the last to start
        lines = shown.read_text().partition("Attaching to")[2].splitlines()
        ready = next(number for number, line in enumerate(lines) if "Sluice is ready" in line)
        assert f"http://localhost:{project.port}/docs" in lines[ready]
        assert ready < 30, lines
        serves(project, user)
        foreground.send_signal(signal.SIGINT)
        foreground.wait(60)
    finally:
        foreground.kill()
        foreground.wait()
    assert project.containers() == []
    project.compose("start")
    serves(project, user)


def test_the_engine_restarted(engine: Engine, project: Project, user: Any) -> None:
    engine.restart()
    project.compose("up", "-d", "--wait")
    serves(project, user)
    until(lambda: sorted(project.targets().values()) == ["up"] * 3, 30)


def test_a_restarted_mount_has_the_mode_that_it_had(project: Project) -> None:
    """Whatever its service needs, also where no stand-in tells: Docker forgets the default one."""
    for name, service in project.config()["services"].items():
        for mount in service.get("tmpfs", []):
            assert "mode=" in mount, name
