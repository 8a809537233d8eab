"""Settings are checked before anything is touched, and the containers have what strangers' engines don't give."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from load import Callers
from project import ROOT, Project
from traffic import person
from whole_stack import until

pytestmark = pytest.mark.timeout(500)  # the first test pays for the engine, the images and the start


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONNECTION_BUDGET", "100", "CONNECTION_BUDGET=100: 1 containers × (2 workers × (100 pool + 2 monitors)"),
        ("MAX_REQUESTS_IN_PROGRESS", "abc", "MAX_REQUESTS_IN_PROGRESS='abc': allowed is a whole number"),
        ("PROMETHEUS_RETENTION", "abc", "PROMETHEUS_RETENTION='abc': allowed is a duration"),
        ("DATABASE_NAME", "a.b", "DATABASE_NAME='a.b': allowed is 1 to 63 characters"),
        ("SLUICE_ADDRESS", "192.0.2.1", "allowed is loopback, or an API_KEY"),
    ],
)
def test_a_wrong_setting_is_one_line_and_a_running_stack_serves_on(
    project: Project, name: str, value: str, said: str
) -> None:
    before = project.ids()
    done = project.run(str(ROOT / "scripts/up.sh"), "-d", **{name: value})
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sluice: ")]
    assert said in line
    assert "nothing was changed" in done.stderr
    assert project.ids() == before
    assert project.http.get("/users", params={"limit": 1}).status_code == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('API_KEY="s3cret\n', ".env line 1"),
        ("MAX_POOL_SIZE: 20\n", ".env line 1"),
        ("MAX_POOLSIZE=5\n", "MAX_POOL_SIZE"),
        ("MONGODB_URL=mongodb://u:s3cret@elsewhere/\n", "MONGODB_URL is not for this"),
    ],
)
def test_a_file_that_is_not_understood_stops_the_start(project: Project, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / ".env").write_text(text)
    (tmp_path / ".env").chmod(0o600)
    elsewhere = tmp_path / "elsewhere.yml"
    elsewhere.write_text(f"services: {{settings: {{volumes: ['{tmp_path}:/repository:ro']}}}}\n")
    files = f"{project.environment['COMPOSE_FILE']}:{elsewhere}"
    done = project.run("docker", "compose", "run", "--rm", "--no-deps", "-T", "settings", COMPOSE_FILE=files)
    assert done.returncode == 1
    assert said in done.stderr
    assert "s3cret" not in done.stderr


def test_a_taken_port_is_named_with_its_setting_before_anything_is_touched(project: Project) -> None:
    before = project.ids()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = project.run(str(ROOT / "scripts/up.sh"), "-d", SLUICE_PORT=str(port))
    assert done.returncode == 1
    assert f"port {port} for nginx is taken" in done.stderr
    assert "choose another with SLUICE_PORT" in done.stderr
    assert project.ids() == before


def test_a_member_with_two_addresses_is_healthy(project: Project) -> None:
    (member,) = project.containers("mongo1")
    network = project.docker("network", "create", f"{project.name}-second").strip()
    try:
        project.docker("network", "connect", network, member)
        assert len(project.docker("exec", member, "hostname", "-i").split()) == 2
        probes = len(project.inspect(member)[0]["State"]["Health"]["Log"])
        last = project.inspect(member)[0]["State"]["Health"]["Log"][-1]["Start"]

        def asked_again() -> bool:
            return bool(project.inspect(member)[0]["State"]["Health"]["Log"][-1]["Start"] > last)

        until(asked_again, 20)
        until(asked_again, 20)
        assert probes
        state = project.inspect(member)[0]["State"]["Health"]
        assert state["Status"] == "healthy"
        assert state["Log"][-1]["ExitCode"] == 0, state["Log"][-1]
    finally:
        project.docker("network", "disconnect", "--force", network, member)
        project.docker("network", "rm", network)


def test_a_changed_setting_reaches_nginx_which_goes_on_running(project: Project) -> None:
    def started() -> str:
        (nginx,) = project.inspect(*project.compose("ps", "--quiet", "nginx").split())
        return str(nginx["State"]["StartedAt"])

    before = started()
    project.compose("up", "-d", "--wait", MAX_REQUESTS_IN_PROGRESS="7")
    assert project.in_progress() == 7 * 2
    project.compose("up", "-d", "--wait")
    assert project.in_progress() == 300 * 2
    assert started() == before


def test_changed_settings_of_the_api_cost_nobody_a_request(project: Project) -> None:
    given = {"MAX_POOL_SIZE": "40", "KEEP_ALIVE": "3"}
    (old,) = project.containers("api")
    try:
        with Callers(project, lambda http: http.post("/users", json=person())) as callers:
            project.script("up.sh", "-d", **given)
            callers.wait_for(201)
        assert set(callers.outcomes) == {201}
        (new,) = project.containers("api")
        assert new != old
        assert (
            project.http.get("/connection-stats").json()["connection_pool_stats"]["pool_config"]["max_pool_size"] == 40
        )
        kept = project.compose("exec", "-T", "nginx", "cat", "/run/nginx/conf/upstream_connections.conf")
        assert "keepalive_timeout 2400ms;" in kept
        ids = project.ids()
        project.script("up.sh", "-d", **given)
        assert project.ids() == ids
    finally:
        project.script("up.sh", "-d")


def test_logs_are_rotated_and_descriptors_suffice(project: Project) -> None:
    for container in project.inspect(*project.containers()):
        host = container["HostConfig"]
        assert host["LogConfig"]["Config"] == {"max-size": "20m", "max-file": "5"}, container["Name"]
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        if service.startswith(("mongo", "api", "nginx")) and service != "nginx-exporter":
            (files,) = host["Ulimits"]
            assert (files["Name"], files["Soft"], files["Hard"]) == ("nofile", 16384, 16384)


def test_no_proxy_of_docker_s_client_is_asked_for_the_stack_s_own_addresses(project: Project) -> None:
    services = project.config()["services"]
    for name in ("settings", "api", "nginx", "nginx-exporter", "prometheus", "ready"):
        environment = services[name]["environment"]
        assert {environment[proxy] for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")} == {""}, (
            name
        )


def test_mounted_files_are_readable_under_selinux(project: Project) -> None:
    for name, service in project.config()["services"].items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind" and name != "settings":
                assert volume["bind"].get("selinux") == "z", f"{name}: {volume}"
