"""Two folders on one machine have two stacks; what a stack stored before that was so is found."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine
from project import ROOT

pytestmark = pytest.mark.timeout(500)


class Machine:
    """An engine, and folders with the scripts."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._made: list[tuple[str, str]] = []

    def clone(self, name: str) -> Path:
        folder = self._folder / name
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        shutil.copy(ROOT / "docker-compose.yml", folder)
        return folder

    def script(self, folder: Path, code: str) -> str:
        """What this prints in one of the scripts."""
        command = f"set -euo pipefail; source scripts/lib.sh; engine_answers; {code}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=self._engine.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def name(self, folder: Path) -> str:
        return self.script(folder, "compose config | sed -n 's/^name: //p'")

    def images(self, folder: Path) -> set[str]:
        """By plain Compose."""
        command = ["docker", "compose", "config", "--images"]
        environment = self._engine.environment
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    def up(self, folder: Path) -> str:
        """As far as names go."""
        name = self.script(folder, 'mark_project; echo "$COMPOSE_PROJECT_NAME"')
        self._made.append(("volume", f"{name}_folder"))
        return name

    def data(self, project: str) -> None:
        self._make("volume", "create", f"{project}_mongo1")

    def container(self, project: str, folder: Path) -> None:
        labels = (f"project={project}", "service=api", f"project.working_dir={folder}")
        self._make(
            "container", "create", *(f"--label=com.docker.compose.{label}" for label in labels), "standin-python"
        )

    def _make(self, kind: str, *arguments: str) -> None:
        self._made.append((kind, self._engine.docker(kind, *arguments).strip()))

    def clear(self) -> None:
        for kind, name in self._made:
            self._engine.docker(kind, "rm", "--force", name)


@pytest.fixture
def machine(engine: Engine, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(engine, tmp_path)
    yield machine
    machine.clear()


def test_a_folder_gives_its_name_to_images_and_data(machine: Machine) -> None:
    first, second = machine.clone("First"), machine.clone("second")
    assert (machine.name(first), machine.name(second)) == ("first", "second")
    ours = {image for image in machine.images(first) if image.startswith(("first", "sluice"))}
    assert ours == {"first-api"}
    assert ours.isdisjoint(machine.images(second))


def test_a_name_that_another_folder_has_is_not_taken(machine: Machine) -> None:
    first, second = machine.clone("one/stack"), machine.clone("two/stack")
    assert machine.up(first) == "stack"
    name = machine.up(second)
    assert name.startswith("stack-")
    assert machine.up(second) == name
    assert machine.up(first) == "stack"
    shutil.rmtree(first)
    assert machine.up(machine.clone("three/stack")) == "stack"


def test_a_stack_that_compose_started_has_its_name(machine: Machine) -> None:
    first, second = machine.clone("one/stack"), machine.clone("two/stack")
    machine.container("stack", first)
    assert machine.name(first) == "stack"
    assert machine.name(second).startswith("stack-")


def test_the_data_of_a_stack_from_before_are_found(machine: Machine) -> None:
    folder = machine.clone("anything")
    machine.data("sluice")
    assert machine.up(folder) == "sluice"
    assert machine.name(machine.clone("new")) == "new"
    assert machine.name(folder) == "sluice"


def test_a_running_stack_from_before_stays_who_it_is(machine: Machine) -> None:
    folder, other = machine.clone("anything"), machine.clone("new")
    machine.data("sluice")
    machine.container("sluice", folder)
    assert machine.name(folder) == "sluice"
    assert machine.name(other) == "new"


def test_a_given_name_wins(machine: Machine) -> None:
    folder = machine.clone("anything")
    machine.data("sluice")
    (folder / ".env").write_text("COMPOSE_PROJECT_NAME=given\n")
    assert machine.name(folder) == "given"
