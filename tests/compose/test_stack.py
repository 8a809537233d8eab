"""The development stack in containers, as `docker compose up` brings it up; the tests build on each other's state."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
from load import Callers
from project import KEY, ROOT, Project, runbook_problems
from traffic import person, traffic
from whole_stack import until

from grafana.checks.live import unanswered
from grafana.checks.sources import live_expressions

pytestmark = pytest.mark.timeout(500)  # the first test pays for the engine, the images and the start

CONNECTIONS = """
import json, pymongo
url = open("/secrets/api/monitoring_url").read()
found = {}
for member in ("mongo1:27017", "mongo2:27017", "mongo3:27017"):
    head, _, rest = url.partition("@")
    tail = rest.partition("/")[2].replace("replicaSet=rs0&", "")
    with pymongo.MongoClient(f"{head}@{member}/{tail}&directConnection=true") as client:
        rows = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}])
        names = [row.get("appName", "") for row in rows if row.get("connectionId", 0) > 0]
        found[member] = sum(name.startswith("sluice-") and not name.endswith("-observer") for name in names)
print(json.dumps(found))
"""


def new_user(http: httpx.Client) -> httpx.Response:
    return http.post("/users", json=person())


def test_every_service_is_up_and_only_nginx_and_prometheus_are_published_on_loopback(project: Project) -> None:
    containers = project.inspect(*project.containers())
    services = Counter(container["Config"]["Labels"]["com.docker.compose.service"] for container in containers)
    assert services == dict.fromkeys(("api", "mongo1", "mongo2", "mongo3", "nginx", "nginx-exporter", "prometheus"), 1)
    published = {
        container["Config"]["Labels"]["com.docker.compose.service"]: binding["HostIp"]
        for container in containers
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {"nginx": "127.0.0.1", "prometheus": "127.0.0.1"}
    until(lambda: sorted(project.targets().values()) == ["up"] * 3, 30)
    assert project.in_progress() == 300 * 2


def test_no_secret_is_in_an_environment_or_a_command_line(project: Project) -> None:
    secrets = project.python(
        "import json, pathlib; print(json.dumps([path.read_text() for path in pathlib.Path('/secrets').rglob('*')"
        " if path.is_file() and path.parent.name != 'grafana']))"
    )
    assert len(secrets) == 6
    everything = project.compose("ps", "-aq").split()
    shown = str(project.inspect(*everything))
    shown += "".join(project.docker("top", container) for container in project.containers())
    shown += "".join(
        project.docker("exec", "-u0", container, "sh", "-c", "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'")
        for service in ("api", "nginx", "mongo1")
        for container in project.containers(service)
    )
    shown += project.compose("logs", "--no-color")
    for secret in secrets:
        password = re.search(r"://\w+:(.+)@", secret)
        hidden = password[1] if password else secret
        assert hidden not in shown
        assert unquote(hidden) not in shown


def test_the_api_runs_with_as_little_as_it_needs(project: Project) -> None:
    (api,) = project.containers("api")
    config = project.inspect(api)[0]
    assert config["Config"]["User"] == "10001:10001"
    assert config["HostConfig"]["ReadonlyRootfs"]
    assert config["HostConfig"]["CapDrop"] == ["ALL"]
    refused = project.run("docker", "exec", api, "sh", "-c", "touch /srv/here || cat /secrets/stack/admin_password")
    assert refused.returncode != 0


def test_nobody_has_a_capability_that_it_needn_t_have(project: Project) -> None:
    for container in project.inspect(*project.containers()):
        assert container["HostConfig"]["CapDrop"] == ["ALL"], container["Name"]
        assert container["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"], container["Name"]


def test_users_are_created_and_read_through_nginx(project: Project) -> None:
    created = new_user(project.http)
    assert created.status_code == 201, created.text
    assert project.http.get(f"/users/{created.json()['id']}").json() == created.json()
    assert project.http.get("/metrics").status_code == 404
    assert project.http.get("/health").json()["status"] == "ok"


def test_the_pools_statistics_are_what_the_members_say(project: Project) -> None:
    def agree() -> bool:
        stats = project.http.get("/connection-stats").json()["connection_pool_stats"]
        monitors = 2 * len(stats["workers"])
        pools = {member["member"]: member["current_connections"] + monitors for member in stats["members"]}
        reported = project.python(CONNECTIONS)
        assert pools == reported, f"workers {pools}, members {reported}"
        return bool(pools)

    until(agree, 60)


def test_initialisation_may_run_again(project: Project) -> None:
    user = new_user(project.http).json()
    before = project.containers("api")
    project.script("up.sh", "-d")
    assert project.containers("api") == before
    for _ in range(2):
        project.compose("run", "--rm", "-T", "--no-deps", "secrets")
        assert "rs0 is ready" in project.compose("run", "--rm", "-T", "--no-deps", "mongo-init")
    assert project.http.get(f"/users/{user['id']}").json() == user


def test_three_containers_serve_and_nginx_follows_a_new_one_under_traffic(project: Project) -> None:
    user = new_user(project.http).json()["id"]
    request_id = f"scaled-{uuid.uuid4().hex}"
    with Callers(project, lambda http: http.get(f"/users/{user}", headers={"X-Request-ID": request_id})) as callers:
        project.compose("up", "-d", "--wait", "--scale", "api=3", "api")
        three = {f"{project.address(container)}:8000" for container in project.containers("api")}
        assert len(three) == 3
        until(lambda: project.in_progress() == 3 * 300 * 2, 20)
        until(lambda: three <= project.upstreams(request_id), 30)
        until(lambda: sum(url.endswith(":8000/metrics") for url in project.targets()) == 3, 30)

        replaced = project.containers("api")[0]
        project.docker("stop", replaced)
        project.docker("rm", replaced)
        project.compose("up", "-d", "--no-recreate", "--wait", "--scale", "api=3", "api")
        again = {f"{project.address(container)}:8000" for container in project.containers("api")}
        until(lambda: again <= project.upstreams(request_id), 30)
        callers.wait_for(200, times=200)
    assert set(callers.outcomes) == {200}, project.failed(request_id)[:3]


def test_one_that_starts_warns_if_the_budget_is_for_fewer(project: Project) -> None:
    def started(budget: str) -> str:
        code = "from app.settings.startup import check, current; check(current())"
        done = project.run("docker", "compose", "run", "--rm", "-T", "--no-deps", "api", "python", "-c", code,
                           CONNECTION_BUDGET=budget)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "CONNECTION_BUDGET=620 is for API_CONTAINERS=1, and more run: 3 containers ×" in started("620")
    assert "CONNECTION_BUDGET" not in started("621")


def test_a_rollout_costs_no_request_and_replaces_what_has_crashed(project: Project) -> None:
    user = new_user(project.http).json()["id"]
    old = set(project.containers("api"))
    project.docker("kill", next(iter(old)))
    reads = Callers(project, lambda http: http.get(f"/users/{user}"))
    writes = Callers(project, new_user, callers=4)
    with reads, writes:
        project.script("rollout.sh", "--no-build")
        reads.wait_for(200, times=200)
    assert set(reads.outcomes) == {200}
    assert set(writes.outcomes) == {201}
    new = set(project.containers("api"))
    assert len(new) == len(old)
    assert not new & old
    assert set(project.compose("ps", "-aq", "api").split()) == new
    until(lambda: project.in_progress() == len(new) * 300 * 2, 20)
    project.compose("up", "-d", "--wait", "--scale", f"api={len(new)}")
    assert set(project.containers("api")) == new


def test_after_a_rollout_that_fails_the_old_containers_serve_on(project: Project) -> None:
    user = new_user(project.http).json()["id"]
    old = project.containers("api")
    with Callers(project, lambda http: http.get(f"/users/{user}")) as reads:
        failed = project.run(str(ROOT / "scripts/rollout.sh"), "--no-build", WORKERS="none")
        reads.wait_for(200, times=200)
    assert failed.returncode == 1
    assert "WORKERS='none': allowed is" in failed.stderr
    assert failed.stderr.strip().endswith("rollout.sh: the rollout failed; the old containers serve on")
    assert set(reads.outcomes) == {200}
    assert project.containers("api") == old


def test_a_killed_primary_is_replaced(project: Project) -> None:
    until(project.whole, 60)
    primary = project.primary()
    project.docker("kill", *project.containers(primary))
    until(lambda: new_user(project.http).status_code == 201, 60)
    assert project.primary() != primary
    project.compose("start", primary)


def test_a_backup_brings_the_users_back(project: Project, tmp_path: Path) -> None:
    user = new_user(project.http).json()
    file = tmp_path / "sluice.backup"
    project.script("backup.sh", str(file))
    later = new_user(project.http).json()
    assert project.http.delete(f"/users/{user['id']}", headers={"If-Match": '"1"'}).status_code == 204

    damaged = tmp_path / "damaged.backup"
    damaged.write_bytes(file.read_bytes()[:-20])
    refused = project.run(str(ROOT / "scripts/restore.sh"), "--yes", str(damaged))
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    assert project.http.get(f"/users/{later['id']}").status_code == 200

    project.script("restore.sh", "--yes", str(file))
    assert project.http.get(f"/users/{user['id']}").json() == user
    assert project.http.get(f"/users/{later['id']}").status_code == 404
    again = project.http.post("/users", json={"email": user["email"], "name": "Somebody else"})
    assert again.status_code == 409, "the unique index is missing"


def test_seeding_finds_the_stack(project: Project) -> None:
    assert "Added 500 users" in project.script("seed.sh", "--users", "500")
    assert "Nothing changed" in project.script("seed.sh", "--users", "500")


def test_the_member_that_was_killed_is_back(project: Project) -> None:
    until(project.whole, 60)


def test_the_runbooks_commands_work(project: Project) -> None:
    assert runbook_problems(project, "containers") == {}


@pytest.mark.timeout(240)
def test_no_panel_variable_or_alert_is_without_an_answer(project: Project) -> None:
    with traffic(project.url):
        assert unanswered(f"http://127.0.0.1:{project.port + 1}", live_expressions(), patience=150) == {}


@pytest.fixture(scope="module")
def changed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With other settings than before."""
    file = tmp_path_factory.mktemp("secrets") / "api_key"
    file.write_text(KEY)
    file.chmod(0o644)
    project.compose("up", "-d", "--wait", SLOW_OPERATION_MS="1", API_KEY_FILE=str(file))
    return project


def test_a_key_from_a_file_is_asked_for_and_in_no_environment(changed: Project) -> None:
    assert new_user(changed.http).status_code == 401
    assert changed.http.post("/users", json=person(), headers={"X-API-Key": KEY}).status_code == 201
    assert KEY not in str(changed.inspect(*changed.containers()))


def test_the_greps_and_logs_sh_work_on_the_stacks_log(changed: Project, tmp_path: Path) -> None:
    project = changed
    users = [person() for _ in range(1000)]
    assert project.http.post("/users/bulk", json={"users": users}, headers={"X-API-Key": KEY}).status_code == 201
    (api,) = project.containers("api")
    project.docker("exec", api, "python", "-c", KILL_A_WORKER)

    def grep(command: str) -> list[str]:
        (tmp_path / "api.log").write_text("\n".join(project.log("api")))
        return project.run("bash", "-c", f"cd {tmp_path} && {command}").stdout.splitlines()

    until(lambda: grep('grep "ERROR" api.log') != [], 30)
    assert grep('grep "connection pool" api.log')
    assert any("users." in line for line in grep("""grep "Execution time" api.log | awk '$NF > 0.001'"""))
    assert grep("""grep "Execution time" api.log | awk '$NF > 1000.0'""") == []
    for report in ("pool", "slow", "errors"):
        assert len(project.script("logs.sh", report).splitlines()) > 1


KILL_A_WORKER = """
import os, pathlib, signal
parents = {int(p.name): int((p / "stat").read_text().rpartition(")")[2].split()[1])
           for p in pathlib.Path("/proc").glob("[0-9]*")}
os.kill(next(pid for pid, parent in parents.items() if parent == 1 and pid != os.getpid()), signal.SIGKILL)
"""


def test_nobody_is_let_in_from_elsewhere_without_a_key(project: Project) -> None:
    done = project.run("docker", "compose", "run", "--rm", "--no-deps", "-T", "-e", "SLUICE_ADDRESS=0.0.0.0", "nginx")
    assert done.returncode == 1
    assert "SLUICE_ADDRESS=0.0.0.0 lets others in, which needs an API_KEY or API_KEY_FILE" in done.stderr
