"""Start the native stack and wait until it is ready. Called by scripts/up.sh, in the stack's virtual environment."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from configure import Choices, configure
from install import InstallError, install_mongod, install_programs, say
from layout import REPLICA_SET, ROOT, Layout, Port, StackError
from supervise import RUNNING, Supervisor, wait_until

sys.path.insert(0, str(ROOT / "mongo"))
sys.path.insert(0, str(ROOT / "api"))

import init_replica_set
import make_secrets

from app.setting_errors import SettingsError
from app.settings import Settings, load


def up(layout: Layout, choices: Choices, settings: Settings) -> None:
    """Bring everything up, in the order in which it depends on each other. Raises `StackError`."""
    supervisor = Supervisor(layout)
    running = {name for name, state in supervisor.states().items() if state == RUNNING} if supervisor.alive else set()
    _refuse_taken_ports(layout, running)
    make_secrets.make_secrets(layout.secrets)
    configure(layout, choices)
    supervisor.start()
    say(f"MongoDB: three members on ports {', '.join(str(port.number) for port in layout.mongo)}")
    for port in layout.mongo:
        supervisor.launch(f"mongod-{port.number}")
    _replica_set(layout, settings.database_name)
    say(f"API: Gunicorn on port {layout.api.number}")
    supervisor.launch("api")
    say(f"nginx on port {layout.http.number}, Prometheus on port {layout.prometheus.number}")
    for name in ("nginx", "nginx-exporter", "prometheus"):
        supervisor.launch(name)
    wait_until(
        lambda: _answers(f"{layout.url}/health/ready"), 60, f"the API is not ready; see {layout.logs / 'api.log'}"
    )
    prometheus = f"http://127.0.0.1:{layout.prometheus.number}"
    wait_until(lambda: _answers(f"{prometheus}/-/ready"), 60, "Prometheus is not ready")
    wait_until(lambda: _all_targets_up(prometheus), 60, f"Prometheus misses a target; see {prometheus}/targets")


def _replica_set(layout: Layout, database: str) -> None:
    replica_set = init_replica_set.ReplicaSet(
        name=REPLICA_SET, hosts=layout.hosts, secrets=layout.secrets, database=database
    )
    try:
        replica_set.initiate()
    except TimeoutError as error:
        raise StackError(f"the replica set does not come up: {error}; see {layout.logs}") from error
    for name, url in (("mongodb_url", replica_set.url("app")), ("monitoring_url", replica_set.url("monitoring"))):
        path = layout.secrets / name
        path.touch(mode=0o600)
        path.write_text(url)


def _refuse_taken_ports(layout: Layout, running: set[str]) -> None:
    wanted = {
        "nginx": layout.http,
        "api": layout.api,
        "nginx-exporter": layout.nginx_exporter,
        "prometheus": layout.prometheus,
        **{f"mongod-{port.number}": port for port in layout.mongo},
    }
    if "nginx" not in running:
        wanted["nginx's status"] = layout.nginx_status
    for name, port in wanted.items():
        if name not in running and _is_taken(port.number):
            raise StackError(
                f"port {port.number} for {name} is taken{_owner(port)}: end that, or choose another with {port.setting}"
            )


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return True
    return False


def _owner(port: Port) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port.number,)
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 our own stack
            return True
    except OSError:
        return False


def _all_targets_up(prometheus: str) -> bool:
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/targets", timeout=5) as answer:  # noqa: S310
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        return False
    return len(targets) == 3 and all(target["health"] == "up" for target in targets)


def _follow(layout: Layout) -> None:
    """Show the API's log until Ctrl-C, then stop everything."""
    log = layout.logs / "api.log"
    follower = subprocess.Popen(["tail", "-n", "20", "-F", str(log)])
    try:
        follower.wait()
    except KeyboardInterrupt:
        say("stopping")
    finally:
        follower.terminate()
        follower.wait()
        Supervisor(layout).stop()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--driver", choices=("pymongo", "motor"))
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    started = time.monotonic()
    try:
        layout = Layout.from_environment()
        if given.driver:
            os.environ["MONGODB_DRIVER"] = given.driver
        if given.workers is not None:
            os.environ["WORKERS"] = str(given.workers)
        settings = load()
        install_programs(["nginx", "prometheus", "prometheus-nginx-exporter"])
        install_mongod(layout.mongod)
        choices = Choices(
            driver=os.environ.get("MONGODB_DRIVER"),
            workers=os.environ.get("WORKERS"),
            public=settings.api_key is not None,
        )
        up(layout, choices, settings)
    except (StackError, InstallError, SettingsError) as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    print(
        f"""
Sluice is ready ({time.monotonic() - started:.0f} s).

  API            {layout.url}
  documentation  {layout.url}/docs
  pools          {layout.url}/connection-stats
  health         {layout.url}/health
  Prometheus     http://localhost:{layout.prometheus.number}
  logs           {_short(layout.logs)}

  ./scripts/seed.sh --users 100000     fill the database
  ./scripts/logs.sh slow               what is slow, and where
  ./scripts/down.sh                    stop everything"""
    )
    if not settings.api_key:
        print("\nnginx listens on loopback only, since there is no API_KEY.")
    if not given.detach:
        print(flush=True)
        _follow(layout)
    return 0


def _short(path: Path) -> str:
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
