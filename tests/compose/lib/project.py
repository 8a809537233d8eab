"""The real compose files, brought up as a project of its own on free ports."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from engine import Engine
from runbook import commands, problems
from whole_stack import until

from stack.free_ports import free_ports

ROOT = Path(__file__).resolve().parents[3]
WITHOUT_GRAFANA = "tests/compose/without-grafana.yml"
KEY = "a-key-for-tests-only"
"""The API key, where there is one."""


class Project:
    """One compose project. Every command runs as a person's would: from the scripts, or `docker compose`."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name
        self.port, *_ = free_ports(3)
        self.environment = engine.environment | {
            "COMPOSE_PROJECT_NAME": name,
            "SLUICE_HOME": str(engine.folder / name),  # where no native stack is
            "SLUICE_PORT": str(self.port),
            "SLUICE_PROMETHEUS_PORT": str(self.port + 1),
            "CONNECTION_BUDGET": "1000",  # a panel shows it
        }
        for setting in ("SLUICE_RUN", "SLUICE_ADDRESS", "API_KEY", "API_KEY_FILE"):
            self.environment.pop(setting, None)
        self.use("docker-compose.yml")

    def use(self, *files: str) -> None:
        """Be described by these files from now on."""
        self.environment["COMPOSE_FILE"] = ":".join((*files, WITHOUT_GRAFANA))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def http(self) -> httpx.Client:
        """Through nginx."""
        return httpx.Client(base_url=self.url, timeout=30)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment | environment, cwd=ROOT, capture_output=True, text=True, timeout=180
        )

    def script(self, name: str, *arguments: str, **environment: str) -> str:
        """What one of scripts/ prints. It has to succeed."""
        done = self.run(str(ROOT / "scripts" / name), *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def compose(self, *arguments: str, **environment: str) -> str:
        """What `docker compose` prints. It has to succeed."""
        done = self.run("docker", "compose", *arguments, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def docker(self, *arguments: str) -> str:
        done = self.run("docker", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def containers(self, service: str = "") -> list[str]:
        """The ids of a service's running containers."""
        return self.compose("ps", "-q", *([service] if service else [])).split()

    def ids(self) -> dict[str, list[str]]:
        """Per service, the ids of its running containers."""
        found: dict[str, list[str]] = {}
        for container in self.inspect(*self.containers()):
            found.setdefault(container["Config"]["Labels"]["com.docker.compose.service"], []).append(container["Id"])
        return found

    def inspect(self, *containers: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *containers))
        return found

    def address(self, container: str) -> str:
        """Where nginx reaches it."""
        networks = self.inspect(container)[0]["NetworkSettings"]["Networks"]
        return str(networks[f"{self.name}_edge"]["IPAddress"])

    def log(self, service: str, tail: int | None = None) -> list[str]:
        """What it wrote; some versions of Compose put a terminal's code before each line."""
        text = self.compose("logs", "--no-color", "--no-log-prefix", f"--tail={tail or 'all'}", service)
        return text.replace("\x1b[2K", "").splitlines()

    def requests(self, request_id: str, tail: int | None = None) -> list[dict[str, Any]]:
        """What nginx logged of the requests with this id."""
        entries = [json.loads(line) for line in self.log("nginx", tail) if line.startswith("{")]
        return [entry for entry in entries if entry["request_id"] == request_id]

    def failed(self, request_id: str) -> list[dict[str, Any]]:
        """Those of them that were answered with anything but 200."""
        return [entry for entry in self.requests(request_id) if entry["status"] != 200]

    def upstreams(self, request_id: str) -> set[str]:
        """The addresses to which nginx sent the latest requests with this id."""
        return {str(entry["upstream"]) for entry in self.requests(request_id, tail=600)}

    def python(self, code: str) -> Any:
        """Run Python where the secrets are (`mongo-init`'s container); what it prints, as JSON."""
        return json.loads(self.compose("run", "--rm", "--no-deps", "-T", "mongo-init", "python", "-c", code))

    def python_of_the_api(self, code: str) -> str:
        """Run Python in a running container of the API; what it prints."""
        return self.compose("exec", "-T", "api", "python", "-c", code)

    def config(self) -> dict[str, Any]:
        """What Compose makes of the files."""
        found: dict[str, Any] = json.loads(self.compose("config", "--format", "json"))
        return found

    def primary(self) -> str:
        """The service whose member is primary, as the API sees it."""
        members = self.http.get("/health").json()["members"]
        return next(str(member["address"]).partition(":")[0] for member in members if member["role"] == "RSPrimary")

    def whole(self) -> bool:
        """Does the API see all members, one of them primary."""
        return str(self.http.get("/health").json()["status"]) == "ok"

    def in_progress(self) -> int:
        """How many requests nginx lets be in progress."""
        (api,) = self.compose("exec", "-T", "nginx", "cat", "/run/nginx/conf/in_progress.conf").splitlines()
        return int(api.split()[-1].rstrip(";"))

    def targets(self) -> dict[str, str]:
        """Prometheus' targets and their health."""
        answer = httpx.get(f"http://127.0.0.1:{self.port + 1}/api/v1/targets").json()
        return {target["scrapeUrl"]: target["health"] for target in answer["data"]["activeTargets"]}

    def down(self) -> None:
        """Whatever there is of it, whether or not it came up."""
        self.run("docker", "compose", "down", "--volumes", "--remove-orphans", "--timeout", "5")


def runbook_problems(project: Project, where: str) -> dict[str, str]:
    """What is wrong with the runbook's commands in `containers` or in `production`. One query stands for all."""
    request_id = f"runbook-{uuid.uuid4().hex}"
    scheme = "https" if where == "production" else "http"
    url = f"{scheme}://127.0.0.1:{project.port}/users?limit=1"
    assert httpx.get(url, headers={"X-Request-ID": request_id}, verify=False).status_code == 200  # noqa: S501
    until(lambda: request_id in project.script("runbook.sh", "log", "nginx", "200"), 10)
    api = project.inspect(*project.containers("api"))[0]
    typed = [command for command in commands() if command.runs(where)]
    query = next(command for command in typed if command.asks_prometheus)
    typed = [command for command in typed if command is query or not command.asks_prometheus]
    return problems(typed, project.environment, PID=str(api["State"]["Pid"]), REQUEST_ID=request_id)


def mongod() -> Path:
    """The mongod that the tests have, or where one is to be put."""
    return Path(os.environ.get("SLUICE_MONGOD") or ROOT / ".sluice/bin/mongod")
