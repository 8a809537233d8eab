"""Start the stack's programs in the order in which they depend on each other, and wait until they serve."""

from __future__ import annotations

import hashlib

from pymongo.errors import PyMongoError

from app.settings.model import Settings
from mongo.init_replica_set import ReplicaSet
from mongo.make_secrets import make_grafana_password, make_secrets
from stack import grafana_server
from stack.configure import Reach, configure, configure_nginx, reach
from stack.home import StackError
from stack.layout import Layout
from stack.loaded import Loaded
from stack.mongod import REPLICA_SET
from stack.output import say
from stack.processes import of_stack
from stack.programs import inherited
from stack.readiness import all_targets_up, answers
from stack.stop import end_leftovers, end_orphans, lost
from stack.supervise import RUNNING, Supervisor, wait_until

RELOAD_SECONDS = 60
"""For new workers to come up, beside what old ones may take to end."""


def start(layout: Layout, settings: Settings) -> None:
    """Bring everything up, or what changed settings concern where it runs. Raises `StackError`."""
    supervisor = Supervisor(layout)
    if not supervisor.alive and (count := end_leftovers(layout)):
        say(f"stopped {count} processes that a process manager that was killed had left")
    elif count := end_orphans(layout):
        say(f"stopped {count} processes that a server that was killed had left")
    make_secrets(layout.secrets)
    grafana = grafana_server.installed(layout)
    if grafana:
        grafana_server.password(layout).parent.mkdir(mode=0o700, exist_ok=True)
        make_grafana_password(grafana_server.password(layout).parent)
    _let_nginx_go_first(layout, supervisor, settings)
    loaded = configure(layout, settings)
    supervisor.start(inherited())
    say(f"MongoDB: three members on ports {', '.join(str(port.number) for port in layout.mongo)}")
    # Prometheus this early, since it takes 5 s before it looks at its targets.
    supervisor.launch(*(f"mongod-{port.number}" for port in layout.mongo), "prometheus")
    _initiate(layout, settings.database_name)
    say(f"API: Gunicorn on port {layout.api.number}")
    say(f"nginx on port {layout.http.number}, Prometheus on port {layout.prometheus.number}")
    supervisor.launch("api", "nginx")
    for name in ("api", "nginx"):
        _take_over(layout, supervisor, name, loaded, settings)
    supervisor.launch("nginx-exporter")  # it ends where it finds no nginx
    supervisor.launch("log-rotation")
    _wait_for_api(layout, supervisor, settings)
    prometheus = f"http://127.0.0.1:{layout.prometheus.number}"
    wait_until(lambda: answers(f"{prometheus}/-/ready"), 60, "Prometheus is not ready")
    wait_until(lambda: all_targets_up(prometheus, 3), 60, f"Prometheus misses a target; see {prometheus}/targets")
    if grafana:
        _launch_grafana(layout, supervisor, grafana)


def _let_nginx_go_first(layout: Layout, supervisor: Supervisor, settings: Settings) -> None:
    """Where it's to do less than it may do now: let others in, of whom the API asks no key as soon as it's changed, or
    use idle connections for as long, which the API closes sooner then. Otherwise the API goes first."""
    if not supervisor.alive or supervisor.states().get("nginx") != RUNNING:
        return
    wanted, now = Reach.of(settings), reach(layout)
    sure = Loaded(layout.home / "run").has("nginx", supervisor.pid("nginx"))
    if wanted.to_others and now.to_others and not sure:
        return  # it may be closed, and the API ask for no key yet
    first = wanted & now
    if first != now or not sure:
        _take_over(layout, supervisor, "nginx", configure_nginx(layout, settings, first), settings)


def _take_over(layout: Layout, supervisor: Supervisor, name: str, loaded: Loaded, settings: Settings) -> None:
    """Let a program that runs read what was changed for it. Raises `StackError`."""
    if (pid := supervisor.pid(name)) == 0:  # it was up for a moment
        raise supervisor.failed(name)
    if not loaded.has(name, pid):
        say(f"{name}: reloading changed settings")
        _reload(layout, supervisor, name, settings.graceful_timeout + RELOAD_SECONDS)
        if name == "api" and not _taken(layout):
            said = supervisor.last_words("api")
            raise StackError(f"the API goes on with its old settings, having refused the changed ones: {said}")
        loaded.note(name, pid)


def _taken(layout: Layout) -> bool:
    """Whether the API has taken over the settings that are there."""
    try:
        return layout.api_settings_taken.read_text() == hashlib.sha256(layout.api_settings.read_bytes()).hexdigest()
    except FileNotFoundError:
        return False


def _wait_for_api(layout: Layout, supervisor: Supervisor, settings: Settings) -> None:
    """Until the new workers serve, and none of a master that was replaced does any more. A mistake in its code ends
    Gunicorn's master again and again; that is told at once."""
    first = supervisor.pid("api")

    def ready() -> bool:
        if not lost(layout) and answers(f"{layout.url}/health/ready"):
            return True
        if supervisor.pid("api") != first:
            raise supervisor.failed("api")
        return False

    seconds = settings.graceful_timeout + RELOAD_SECONDS
    wait_until(ready, seconds, f"the API is not ready; see {layout.logs / 'api.log'}")


def _reload(layout: Layout, supervisor: Supervisor, name: str, seconds: float) -> None:
    """Wait until none of the old workers takes anything new: those of nginx that still answer say so in their title."""
    master = supervisor.pid(name)

    def workers() -> set[int]:
        found = {process.pid: process for process in of_stack(layout.home) if master in (process.pid, process.parent)}
        alike = [each for each in found.values() if each.pid != master and each.name == found[master].name]
        return {worker.pid for worker in alike if "shutting down" not in " ".join(worker.command)}

    old = workers()
    supervisor.reload(name)
    wait_until(lambda: bool(workers() - old) and not workers() & old, seconds, f"{name} does not reload")


def _initiate(layout: Layout, database: str) -> None:
    replica_set = ReplicaSet(name=REPLICA_SET, hosts=layout.hosts, secrets=layout.secrets, database=database)
    try:
        replica_set.initiate()
    except (TimeoutError, PyMongoError) as error:
        raise StackError(f"the replica set does not come up: {error}; see {layout.logs}") from error
    replica_set.write_urls(layout.secrets)


def _launch_grafana(layout: Layout, supervisor: Supervisor, grafana: grafana_server.Grafana) -> None:
    """Dashboards are no reason to have no API."""
    say(f"Grafana on port {grafana.port.number}: {grafana.server[0]}")
    log = layout.logs / "grafana.out"
    try:
        supervisor.launch("grafana")
        wait_until(lambda: answers(f"{layout.url}/grafana/api/health"), 60, f"Grafana is not ready; see {log}")
    except StackError as error:
        say(f"without Grafana: {error}")
