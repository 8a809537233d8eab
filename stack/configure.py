"""Write the native stack's configuration: the repository's own files, with this stack's addresses filled in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from app.settings.model import Settings
from stack import grafana_server
from stack.home import ROOT, StackError
from stack.install import SYSTEM_PATH
from stack.layout import Layout
from stack.programs import FILES, programs
from stack.supervisord_conf import supervisord_conf


def configure(layout: Layout, settings: Settings) -> None:
    """Write everything that the services read, below the stack's home. Raises `StackError`."""
    for folder in (layout.logs, layout.home / "run", layout.home / "prometheus"):
        folder.mkdir(parents=True, exist_ok=True)
    layout.make_shared()
    for port in layout.mongo:
        (layout.home / "data" / str(port.number)).mkdir(parents=True, exist_ok=True)
    _nginx(layout, settings)
    _prometheus(layout)
    text = supervisord_conf(layout, programs(layout, settings))
    layout.supervisor.touch(mode=0o600)
    layout.supervisor.chmod(0o600)  # an API key may be in it
    layout.supervisor.write_text(text)


def _nginx(layout: Layout, settings: Settings) -> None:
    folder = layout.home / "nginx"
    (folder / "conf").mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    if logs.is_dir() and not logs.is_symlink():
        shutil.rmtree(logs)
    if not logs.is_symlink():
        logs.symlink_to(layout.logs)
    for name in ("nginx.conf", "mime_types.conf", "problem.conf"):
        shutil.copyfile(ROOT / "nginx" / name, folder / "conf" / name)
    _edge(folder / "conf", settings)
    locations = folder / "conf" / "locations"
    shutil.rmtree(locations, ignore_errors=True)
    locations.mkdir()
    if grafana := grafana_server.installed(layout):
        address = f"http://127.0.0.1:{grafana.port.number}"
        page = f"location /grafana/ {{\n  proxy_pass {address};\n}}\n"
        live = f"location = /grafana/api/live/ws {{\n  set $upgrade $http_upgrade;\n  proxy_pass {address};\n}}\n"
        _write(locations, {"grafana.conf": page + live})
    api = f"127.0.0.1:{layout.api.number}"
    host = "127.0.0.1:" if settings.api_key is None else ""
    user = "user nobody nogroup;\n" if os.getuid() == 0 else ""
    # What the API allows itself, and then some: its own answer is the better one.
    seconds = max(settings.request_timeout_ms / 1000, settings.timeout) + 5
    _write(
        folder / "conf",
        {
            "environment.conf": f"{user}daemon off;\nworker_processes auto;\nworker_rlimit_nofile {FILES};\n"
            f'pid "{layout.home}/run/nginx.pid";\nerror_log stderr warn;\n',
            "listen.conf": f"listen {host}{layout.http.number} backlog=4096;\n",
            "listen_status.conf": f"listen 127.0.0.1:{layout.nginx_status.number};\n",
            "limits.conf": f"client_max_body_size {settings.max_body_bytes};  # MAX_BODY_BYTES\n"
            f"client_body_buffer_size {settings.max_body_bytes};  # so that no body touches a disk\n"
            f"proxy_read_timeout {seconds:.0f}s;  # above REQUEST_TIMEOUT_MS and TIMEOUT\n"
            "proxy_next_upstream_tries 3;  # an idle connection that the API has just closed doesn't count\n",
            "in_progress.conf": f"limit_conn in_progress {settings.max_requests_in_progress * settings.workers};\n",
            # A stopping worker closes many idle connections at once, and nginx tries each entry at most once per
            # request. max_fails=0: the only address there is must not be taken out of service.
            "upstream.conf": "upstream api {\n" + f"  server {api} max_fails=0;\n" * 16 + "  keepalive 512;\n"
            f"  keepalive_timeout {settings.keep_alive * 800}ms;  # below KEEP_ALIVE\n"
            "  keepalive_requests 1000000;\n}\n",
        },
    )


def _edge(folder: Path, settings: Settings) -> None:
    """Raises `StackError` for proxies whose word this nginx can't take."""
    lists = {
        "TRUSTED_PROXIES": ",".join(map(str, settings.trusted_proxies)),
        "CORS_ORIGINS": ",".join(settings.cors_origins),
    }
    command = ["sh", str(ROOT / "nginx" / "edge.sh"), str(folder)]
    done = subprocess.run(command, env={"PATH": SYSTEM_PATH, **lists}, capture_output=True, text=True)
    if done.returncode != 0:
        raise StackError(done.stderr.strip())


def _prometheus(layout: Layout) -> None:
    folder = layout.home / "prometheus"
    shutil.copyfile(ROOT / "prometheus" / "prometheus.yml", folder / "prometheus.yml")
    shutil.rmtree(folder / "rules", ignore_errors=True)
    if (ROOT / "prometheus" / "rules").is_dir():
        shutil.copytree(ROOT / "prometheus" / "rules", folder / "rules")
    (folder / "targets").mkdir(exist_ok=True)
    ports = {"api": layout.api, "nginx": layout.nginx_exporter, "prometheus": layout.prometheus}
    _write(
        folder / "targets",
        {f"{job}.json": json.dumps([{"targets": [f"127.0.0.1:{port.number}"]}]) for job, port in ports.items()},
    )


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
