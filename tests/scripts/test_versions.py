"""Versions that are named in several places agree, and docs/compatibility.md says why each was chosen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
IMAGES = sorted({service["image"] for service in COMPOSE["services"].values() if "image" in service})
IMAGES = [image for image in IMAGES if "$" not in image]
"""What docker-compose.yml takes from a registry."""
BASES = re.findall(r"^FROM (\S+:\S+)", (ROOT / "api/Dockerfile").read_text(), re.MULTILINE)
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def lib(command: str, **environment: str) -> str:
    """What a function of lib.sh says."""
    done = subprocess.run(
        ["bash", "-c", f'source "{ROOT}/scripts/lib.sh"; {command}'],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_service_and_the_one_shots_have_the_same_python() -> None:
    assert len(BASES) == 1
    assert [image for image in IMAGES if image.startswith("python:")] == BASES


def test_the_image_has_a_python_that_the_project_supports_and_tests() -> None:
    version = lib("image_python")
    assert f"python:{version}-slim" in BASES
    minimum = tomllib.loads((ROOT / "api/pyproject.toml").read_text())["project"]["requires-python"]
    assert [int(part) for part in version.split(".")] >= [int(part) for part in minimum.removeprefix(">=").split(".")]
    assert "image_python" in (ROOT / "scripts/test.sh").read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_named_by_a_version_whose_choice_is_explained(image: str) -> None:
    assert re.search(r":v?\d+\.\d+", image), "not latest, which is another one every day"
    assert f"| `{image}` |" in (ROOT / "docs/compatibility.md").read_text()


def test_other_files_name_no_image_of_their_own() -> None:
    production = (ROOT / "docker-compose.prod.yml").read_text()
    assert "image:" not in production
    assert "FROM python" not in "".join(path.read_text() for path in ROOT.glob("tests/compose/standins/*/Dockerfile"))


class TestFindVersion:
    """`find_version`, which chooses the Python that api/tests run on once more."""

    @pytest.fixture
    def pyenv(self, tmp_path: Path) -> Path:
        """pyenv's folder, with a version that is what its name says, and one that isn't."""
        for name in (f"{PYTHON}.77", "3.99.1"):
            python = tmp_path / "versions" / name / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
            python.chmod(0o755)
        return tmp_path

    def found(self, version: str, pyenv: Path, **environment: Any) -> str:
        return lib(f"find_version {version} || echo none", PYENV_ROOT=str(pyenv), **environment)

    def test_on_path(self, pyenv: Path, tmp_path: Path) -> None:
        (tmp_path / f"python{PYTHON}").symlink_to(pyenv / "versions" / f"{PYTHON}.77" / "bin" / "python")
        assert self.found(PYTHON, pyenv, PATH=f"{tmp_path}:{os.environ['PATH']}") == f"python{PYTHON}"

    def test_of_pyenv_whose_shim_on_path_refuses(self, pyenv: Path, tmp_path: Path) -> None:
        shim = tmp_path / f"python{PYTHON}"
        shim.write_text("#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n")
        shim.chmod(0o755)
        expected = str(pyenv / "versions" / f"{PYTHON}.77" / "bin" / "python")
        assert self.found(PYTHON, pyenv, PATH=f"{tmp_path}:{os.environ['PATH']}") == expected

    def test_not_by_its_name_alone(self, pyenv: Path) -> None:
        assert self.found("3.99", pyenv) == "none"
