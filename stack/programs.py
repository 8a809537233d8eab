"""The programs that make up the native stack: how each is started, and what it must be started again for."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from app.settings.check import DEFAULTS
from app.settings.model import Settings
from stack import grafana_server
from stack.home import ROOT
from stack.install import find
from stack.layout import ENV_FILES, Layout
from stack.mongod import mongod_command

FILES = min(16_384, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
"""Open files per process: the wished-for number where the system allows it."""
SETTINGS = frozenset(name.upper() for name in Settings.model_fields)
"""The variables that are the service's. It gets them from its own section, so that changed ones are noticed."""
FIXED = frozenset({"BIND", "LOG_FILE", "MONGODB_DRIVER", "MONGODB_URL_FILE", "MONITORING_URL_FILE", "STATS_DIR"})
"""Those that stay as long as its process does: places, which this stack decides, and the driver."""
OURS = frozenset({"PYTHONPATH", "PYTHONSAFEPATH"})
"""What the scripts set so that Python finds this package."""


@dataclass(kw_only=True)
class Program:
    """`reads`: files whose change means a restart. `options` are supervisord's."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    reads: Iterable[Path] = ()
    options: dict[str, str] = field(default_factory=dict)


def inherited() -> dict[str, str]:
    """The environment of supervisord: the caller's, but for what the API gets by its own section."""
    return {name: value for name, value in os.environ.items() if name.upper() not in SETTINGS | OURS}


def programs(layout: Layout, settings: Settings) -> dict[str, Program]:
    """Each by its name; Grafana where one is installed."""
    found = {f"mongod-{port.number}": _mongod(layout, port.number) for port in layout.mongo} | {
        "api": _api(layout, settings),
        "nginx": _nginx(layout),
        "nginx-exporter": _nginx_exporter(layout),
        "prometheus": _prometheus(layout),
        "log-rotation": _log_rotation(layout),
    }
    if grafana := grafana_server.installed(layout):
        found["grafana"] = _grafana(layout, grafana)
    return found


def _mongod(layout: Layout, port: int) -> Program:
    return Program(
        command=mongod_command(
            layout.mongod,
            port,
            data=layout.home / "data" / str(port),
            log=layout.logs / f"mongod-{port}.log",
            cache_gb=0.5,
            shutdown_ms=500,  # all members go down together
            oplog_mb=512,
            key_file=layout.secrets / "mongo_key",
        ),
        options={"stopwaitsecs": "30"},
    )


def api_settings(settings: Settings) -> str:
    """What the API reads at its start and at each reload: its settings, and whether files with more have changed."""
    defaults = {name.upper(): str(getattr(settings, name)) for name in DEFAULTS}
    given = {name: value for name, value in os.environ.items() if name.upper() in SETTINGS - FIXED and value}
    paths = {  # as they lead from here: it runs in another folder
        name.upper(): str(path.absolute())
        for name in ("api_key_file", "worker_tmp_dir")
        if name in settings.model_fields_set and (path := getattr(settings, name)) is not None
    }
    given = {name: value for name, value in given.items() if name.upper() not in paths}
    contents = [path.read_bytes() for path in ENV_FILES if path.is_file()]
    if settings.api_key is not None:  # which may come from a file, too
        contents.append(settings.api_key.get_secret_value().encode())
    return json.dumps(
        {"environment": defaults | given | paths, "files": hashlib.sha256(b"\0".join(contents)).hexdigest()}
    )


def _api(layout: Layout, settings: Settings) -> Program:
    own = {
        "SLUICE_API_SETTINGS": str(layout.api_settings),
        "SLUICE_API_SETTINGS_TAKEN": str(layout.api_settings_taken),
        "MONGODB_DRIVER": settings.mongodb_driver,  # also where it is the default: naming it is no change
        "MONGODB_URL_FILE": str(layout.secrets / "mongodb_url"),
        "MONITORING_URL_FILE": str(layout.secrets / "monitoring_url"),
        "BIND": f"127.0.0.1:{layout.api.number}",
        "STATS_DIR": str(layout.shared / "statistics"),
        "LOG_FILE": str(layout.logs / "api.log"),
        "PYTHONUNBUFFERED": "1",
    }
    # With PRELOAD the master has the application, and its settings, for as long as it lives.
    kept = [layout.api_settings] if settings.preload else []
    code = [path for path in sorted((ROOT / "api").rglob("*.py")) if "tests" not in path.parts]
    return Program(
        command=[sys.executable, "-m", "gunicorn", "-c", str(ROOT / "stack" / "gunicorn_conf.py"), "main:app"],
        environment=own,
        reads=[*code, ROOT / "api" / "requirements.lock", ROOT / "stack" / "gunicorn_conf.py", *kept],
        # Not GRACEFUL_TIMEOUT, whose change would be a restart: Gunicorn keeps to that by itself. The longest there is,
        # twice, since a reload that is under way comes first.
        options={"directory": str(ROOT / "api"), "stopwaitsecs": "7300"},
    )


def _nginx(layout: Layout) -> Program:
    folder = layout.home / "nginx"
    return Program(
        command=[
            str(ROOT / "nginx" / "run.sh"), str(layout.home / "run" / "nginx-errors"),
            find("nginx") or "nginx", "-p", str(folder), "-c", "conf/nginx.conf",
        ],
        # A reload reads the rest again.
        reads=[folder / "conf" / "environment.conf", *sorted((ROOT / "nginx").glob("*.awk"))],
        options={"stopsignal": "QUIT", "stopwaitsecs": "60"},  # for what is under way: as long as in containers
    )  # fmt: skip


def _nginx_exporter(layout: Layout) -> Program:
    return Program(
        command=[
            find("prometheus-nginx-exporter") or "prometheus-nginx-exporter",
            f"-web.listen-address=127.0.0.1:{layout.nginx_exporter.number}",
            f"-nginx.scrape-uri=http://127.0.0.1:{layout.nginx_status.number}/stub_status",
        ]
    )


def _prometheus(layout: Layout) -> Program:
    folder = layout.home / "prometheus"
    return Program(
        command=[
            find("prometheus") or "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=7d",
            f"--web.listen-address=127.0.0.1:{layout.prometheus.number}",
        ],
        reads=[folder / "prometheus.yml", *sorted(folder.glob("rules/*")), *sorted(folder.glob("targets/*"))],
    )  # fmt: skip


def _log_rotation(layout: Layout) -> Program:
    script = ROOT / "stack" / "rotate.py"
    return Program(command=[sys.executable, str(script), str(layout.logs), str(layout.log_bytes)], reads=[script])


def _grafana(layout: Layout, grafana: grafana_server.Grafana) -> Program:
    return Program(
        command=grafana.command,
        environment=grafana_server.environment(layout, grafana),
        reads=sorted((ROOT / "grafana" / "provisioning").rglob("*.yml")),
        options={"directory": str(grafana.home)},
    )
