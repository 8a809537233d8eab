"""Start the native stack and wait until it is ready. Called by scripts/up.sh, in the stack's virtual environment."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main`: nothing runs yet, and where it was helps nobody

# ruff: noqa: E402
import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

from pymongo.errors import PyMongoError

from app.settings.check import check
from app.settings.errors import SettingsError
from app.settings.model import Settings
from mongo import init_replica_set, make_secrets
from stack import grafana_server
from stack.configure import configure
from stack.install import InstallError, install_mongod, install_programs, say, tell
from stack.layout import ENV_FILES, Layout, StackError
from stack.mongod import REPLICA_SET
from stack.ports import refuse_taken
from stack.processes import of_stack
from stack.programs import inherited
from stack.stop import end_leftovers, end_orphans, stop
from stack.supervise import Supervisor, wait_until

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupted = threading.Event()
"""Kept, since an exception is lost where it meets a destructor or a callback, as there are in the driver."""


def up(layout: Layout, settings: Settings) -> None:
    """Bring everything up, in the order in which it depends on each other. Raises `StackError`."""
    supervisor = Supervisor(layout)
    if not supervisor.alive and (count := end_leftovers(layout)):
        say(f"stopped {count} processes that a process manager that was killed had left")
    elif count := end_orphans(layout):
        say(f"stopped {count} processes that a server that was killed had left")
    make_secrets.make_secrets(layout.secrets)
    grafana = grafana_server.installed(layout)
    if grafana:
        grafana_server.password(layout).parent.mkdir(mode=0o700, exist_ok=True)
        make_secrets.make_grafana_password(grafana_server.password(layout).parent)
    configure(layout, settings)
    supervisor.start(inherited())
    say(f"MongoDB: three members on ports {', '.join(str(port.number) for port in layout.mongo)}")
    # Prometheus this early, since it takes 5 s before it looks at its targets.
    supervisor.launch(*(f"mongod-{port.number}" for port in layout.mongo), "prometheus")
    _replica_set(layout, settings.database_name)
    say(f"API: Gunicorn on port {layout.api.number}")
    say(f"nginx on port {layout.http.number}, Prometheus on port {layout.prometheus.number}")
    supervisor.launch("api", "nginx")
    supervisor.launch("nginx-exporter")  # it ends where it finds no nginx
    supervisor.launch("log-rotation")
    api_log = layout.logs / "api.log"
    wait_until(lambda: _answers(f"{layout.url}/health/ready"), 60, f"the API is not ready; see {api_log}")
    prometheus = f"http://127.0.0.1:{layout.prometheus.number}"
    wait_until(lambda: _answers(f"{prometheus}/-/ready"), 60, "Prometheus is not ready")
    wait_until(lambda: _all_targets_up(prometheus), 60, f"Prometheus misses a target; see {prometheus}/targets")
    if grafana:
        _launch_grafana(layout, supervisor, grafana)


def _launch_grafana(layout: Layout, supervisor: Supervisor, grafana: grafana_server.Grafana) -> None:
    """Dashboards are no reason to have no API."""
    say(f"Grafana on port {grafana.port.number}: {grafana.server}")
    log = layout.logs / "grafana.out"
    try:
        supervisor.launch("grafana")
        wait_until(lambda: _answers(f"{layout.url}/grafana/api/health"), 60, f"Grafana is not ready; see {log}")
    except StackError as error:
        say(f"without Grafana: {error}")


def _replica_set(layout: Layout, database: str) -> None:
    replica_set = init_replica_set.ReplicaSet(
        name=REPLICA_SET, hosts=layout.hosts, secrets=layout.secrets, database=database
    )
    try:
        replica_set.initiate()
    except (TimeoutError, PyMongoError) as error:
        raise StackError(f"the replica set does not come up: {error}; see {layout.logs}") from error
    replica_set.write_urls(layout.secrets)


def _check_ports(layout: Layout, settings: Settings) -> Layout:
    """The layout, without Grafana where only that can't be had. Raises `StackError`."""

    def is_own(pid: int) -> bool:
        return pid in {process.pid for process in of_stack(layout.home)}

    everywhere = frozenset({"nginx"}) if settings.api_key is not None else frozenset()
    refuse_taken(layout.ports, is_own, everywhere=everywhere)
    try:
        if grafana := grafana_server.installed(layout):
            refuse_taken({"grafana": grafana.port}, is_own)
    except StackError as error:
        say(f"without Grafana: {error}")
        return replace(layout, grafana=None)
    return layout


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
    follower = subprocess.Popen(["tail", "-n", "20", "-F", str(layout.logs / "api.log")])
    try:
        follower.wait()
    except KeyboardInterrupt:
        pass
    finally:
        follower.kill()
        follower.wait()
        with layout.alone():
            _stop(layout)


def _interrupt(*_: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _stop(layout: Layout) -> None:
    for number in STOPPING:  # once is enough
        signal.signal(number, signal.SIG_IGN)
    say("stopping")
    stop(layout)


def main() -> int:
    parser = argparse.ArgumentParser(
        "up.sh", usage="up.sh [-d] [--native|--docker] [--driver pymongo|motor] [--workers N]"
    )
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--driver", choices=("pymongo", "motor"))
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    for number in STOPPING:
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        settings = _settings(given.driver, given.workers)
        layout = Layout.from_environment()
        with layout.alone():
            layout.check_shared()
            layout = _check_ports(layout, settings)
            ran_before = Supervisor(layout).alive
            install_programs(["nginx", "prometheus", "prometheus-nginx-exporter"])
            install_mongod(layout.mongod)
            try:
                up(layout, settings)
                if _interrupted.is_set():
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                if not ran_before:
                    _stop(layout)
                raise
        _tell(layout, time.monotonic() - started)
        if settings.api_key is None:
            tell("\nnginx listens on loopback only, since there is no API_KEY.")
        if not given.detach:
            _follow(layout)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"up: {mistake}", file=sys.stderr)
        return 1
    except (StackError, InstallError) as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("up: interrupted", file=sys.stderr)
        return 130
    return 0


def _settings(driver: str | None, workers: int | None) -> Settings:
    """The service's settings, once those of the whole stack were checked. Raises `SettingsError`."""
    if driver is not None:
        os.environ["MONGODB_DRIVER"] = driver
    if workers is not None:
        os.environ["WORKERS"] = str(workers)
    checked = check(ENV_FILES)
    for warning in checked.warnings:
        print(f"up: {warning}", file=sys.stderr)
    return checked.settings


def _tell(layout: Layout, seconds: float) -> None:
    password = _short(grafana_server.password(layout))
    grafana = (
        f"""
  Grafana        {layout.url}/grafana/ (to change something: admin, with the password in
                 {password})"""
        if grafana_server.installed(layout)
        else ""
    )
    tell(
        f"""
Sluice is ready ({seconds:.0f} s).

  API            {layout.url}
  documentation  {layout.url}/docs
  pools          {layout.url}/connection-stats
  health         {layout.url}/health
  Prometheus     http://localhost:{layout.prometheus.number}{grafana}
  logs           {_short(layout.logs)}

  ./scripts/seed.sh --users 100000     fill the database
  ./scripts/logs.sh slow               what is slow, and where
  ./scripts/down.sh                    stop everything"""
    )


def _short(path: Path) -> str:
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
