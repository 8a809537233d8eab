"""Write the native stack's configuration: the repository's own files, with this stack's addresses filled in."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from install import find
from layout import REPLICA_SET, ROOT, Layout


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the caller of up.sh chose; None leaves the service's own setting or default."""

    driver: str | None
    workers: str | None
    public: bool


def configure(layout: Layout, choices: Choices) -> None:
    """Write everything that the services read, below the stack's home."""
    for folder in (layout.logs, layout.home / "run", layout.home / "prometheus", layout.shared):
        folder.mkdir(mode=0o700 if folder == layout.shared else 0o755, parents=True, exist_ok=True)
    for host in layout.mongo:
        (layout.home / "data" / str(host.number)).mkdir(parents=True, exist_ok=True)
    _nginx(layout, choices.public)
    _prometheus(layout)
    layout.supervisor.write_text(_supervisor(layout, choices))


def _nginx(layout: Layout, public: bool) -> None:
    folder = layout.home / "nginx"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "conf").mkdir(exist_ok=True)
    for name in ("nginx.conf", "mime_types.conf"):
        shutil.copyfile(ROOT / "nginx" / name, folder / "conf" / name)
    address = f"{layout.http.number}" if public else f"127.0.0.1:{layout.http.number}"
    api = f"127.0.0.1:{layout.api.number}"
    user = "user nobody nogroup;\n" if os.getuid() == 0 else ""
    _write(
        folder / "conf",
        {
            "environment.conf": f"{user}daemon off;\nworker_processes auto;\nworker_rlimit_nofile 16384;\n"
            f"pid {layout.home}/run/nginx.pid;\nerror_log logs/nginx-error.log warn;\n",
            "listen.conf": f"listen {address} backlog=4096;\n",
            "listen_status.conf": f"listen 127.0.0.1:{layout.nginx_status.number};\n",
            # max_fails=0: the only address there is must not be taken out of service.
            "upstream.conf": f"upstream api {{\n  server {api} max_fails=0;\n  server {api} max_fails=0;\n"
            "  keepalive 128;\n  keepalive_timeout 4s;  # Gunicorn closes after 5\n"
            f"  keepalive_requests 1000000;\n}}\n",
        },
    )


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


def _supervisor(layout: Layout, choices: Choices) -> str:
    home, run = layout.home, layout.home / "run"
    python = Path(sys.executable).parent
    environment = {
        "MONGODB_URL_FILE": str(layout.secrets / "mongodb_url"),
        "MONITORING_URL_FILE": str(layout.secrets / "monitoring_url"),
        "BIND": f"127.0.0.1:{layout.api.number}",
        "STATS_DIR": str(layout.shared / "statistics"),
        "LOG_FILE": str(layout.logs / "api.log"),
        "PYTHONUNBUFFERED": "1",
        # Gunicorn's usual 1000 would replace a worker every second of a load test, and halve what it carries.
        "MAX_REQUESTS": os.environ.get("MAX_REQUESTS", "100000"),
        "MAX_REQUESTS_JITTER": os.environ.get("MAX_REQUESTS_JITTER", "10000"),
    }
    if choices.driver:
        environment["MONGODB_DRIVER"] = choices.driver
    if choices.workers:
        environment["WORKERS"] = choices.workers
    programs = {
        f"mongod-{port.number}": (
            [
                str(layout.mongod), "--replSet", REPLICA_SET, "--keyFile", str(layout.secrets / "mongo_key"),
                "--bind_ip", "127.0.0.1", "--port", str(port.number), "--dbpath", str(home / "data" / str(port.number)),
                "--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "512", "--nounixsocket",
                "--logpath", str(layout.logs / f"mongod-{port.number}.log"), "--logappend", "--logRotate", "reopen",
                # All members go down together: the 15 s that clients usually get to find another would be lost.
                "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=500",
            ],
            {"stopwaitsecs": "30", "directory": str(home)},
        )
        for port in layout.mongo
    }  # fmt: skip
    programs["api"] = (
        [str(python / "gunicorn"), "-c", "gunicorn.conf.py", "main:app"],
        {
            "directory": str(ROOT / "api"),
            "environment": ",".join(f'{name}="{value}"' for name, value in environment.items()),
            "stopwaitsecs": "40",
        },
    )
    programs["nginx"] = (
        [find("nginx") or "nginx", "-p", str(home / "nginx"), "-c", "conf/nginx.conf", "-e", "stderr"],
        {"stopsignal": "QUIT"},
    )
    programs["nginx-exporter"] = (
        [
            find("prometheus-nginx-exporter") or "prometheus-nginx-exporter",
            f"-web.listen-address=127.0.0.1:{layout.nginx_exporter.number}",
            f"-nginx.scrape-uri=http://127.0.0.1:{layout.nginx_status.number}/stub_status",
        ],
        {},
    )
    programs["prometheus"] = (
        [
            find("prometheus") or "prometheus",
            f"--config.file={home / 'prometheus' / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'prometheus' / 'data'}", "--storage.tsdb.retention.time=7d",
            f"--web.listen-address=127.0.0.1:{layout.prometheus.number}",
        ],
        {},
    )  # fmt: skip
    head = (
        f"[unix_http_server]\nfile={layout.socket}\nchmod=0700\n\n"
        f"[supervisord]\nlogfile={layout.logs / 'supervisord.log'}\nlogfile_maxbytes=5MB\nloglevel=info\n"
        f"pidfile={run / 'supervisord.pid'}\nminfds=16384\ndirectory={home}\n"
        + (f"user={pwd.getpwuid(os.getuid()).pw_name}\n" if os.getuid() == 0 else "")
        + "\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
    ).replace("%", "%%")
    return head + "".join(_program(layout, name, *program) for name, program in programs.items())


def _program(layout: Layout, name: str, command: list[str], options: dict[str, str]) -> str:
    """A program that is started again whenever it dies, and stopped with all of its children."""
    lines = {
        "command": " ".join(_quoted(word) for word in command),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": "1",
        "startretries": "10",
        "stopasgroup": "false",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": str(layout.logs / f"{name}.out"),
        "stdout_logfile_maxbytes": "5MB",
        "stdout_logfile_backups": "1",
        **options,
    }
    return f"\n[program:{name}]\n" + "".join(f"{key}={value.replace('%', '%%')}\n" for key, value in lines.items())


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
