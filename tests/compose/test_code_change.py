"""What a changed line of the API's code replaces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from project import ROOT, Project

pytestmark = pytest.mark.timeout(500)


def test_only_what_runs_the_code_is_replaced(project: Project, tmp_path: Path) -> None:
    for folder in ("api", "mongo", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    with (tmp_path / "api/app/http/etags.py").open("a") as code:
        code.write("\n# A change.\n")
    elsewhere = tmp_path / "elsewhere.yml"
    elsewhere.write_text(f"services: {{api: {{build: {{context: {tmp_path}}}}}}}\n")
    before = project.ids()
    started = {container["Id"]: container["State"]["StartedAt"] for container in project.inspect(*project.containers())}
    files = project.environment["COMPOSE_FILE"]
    project.compose("up", "-d", "--build", "--wait", COMPOSE_FILE=f"{files}:{elsewhere}")
    changed = project.python_of_the_api("print(open('/srv/app/http/etags.py').read().endswith('# A change.\\n'))")
    assert changed.strip() == "True"
    after = project.ids()
    assert after["api"] != before["api"]
    for container in project.inspect(*project.containers()):
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        if service not in ("api", "nginx-exporter"):
            assert container["State"]["StartedAt"] == started.get(container["Id"]), f"{service} was restarted"
    project.compose("up", "-d", "--build", "--wait")
