"""Write the native stack's configuration: the repository's own files, with this stack's addresses filled in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.settings.model import Settings
from stack import grafana_server, nginx
from stack.files import replace
from stack.home import ROOT, StackError
from stack.install import find
from stack.layout import Layout
from stack.loaded import Loaded, digest
from stack.programs import FILES, api_settings, programs
from stack.supervisord_conf import supervisord_conf

KEEPING_IDLE = "keepalive_min_timeout 5s;  # a reload must not close a connection on which a request is just coming\n"


@dataclass(frozen=True)
class Reach:
    """What nginx may do only as long as the API allows for it."""

    to_others: bool
    """Whether it lets in who isn't on this machine."""
    idle_ms: int
    """For how long it uses idle connections to the API."""

    @classmethod
    def of(cls, settings: Settings) -> Reach:
        return cls(settings.api_key is not None, nginx.idle_ms(settings))

    def __and__(self, other: Reach) -> Reach:
        """What both allow."""
        return Reach(self.to_others and other.to_others, min(self.idle_ms, other.idle_ms))


def reach(layout: Layout) -> Reach:
    """What nginx's files allow now; the most where they don't say."""
    folder = layout.home / "nginx" / "conf"
    listen = folder / "listen.conf"
    to_others = not listen.is_file() or listen.read_text() != listening(layout, to_others=False)
    return Reach(to_others, nginx.idle_now(folder) or sys.maxsize)


def configure(layout: Layout, settings: Settings) -> Loaded:
    """Write everything that the services read, below the stack's home. Raises `StackError`.

    Returns which of the programs that a reload gives what has changed have read it.
    """
    for folder in (layout.logs, layout.home / "run", layout.home / "prometheus"):
        folder.mkdir(parents=True, exist_ok=True)
    layout.make_shared()
    for port in layout.mongo:
        (layout.home / "data" / str(port.number)).mkdir(parents=True, exist_ok=True)
    configure_nginx(layout, settings)
    _prometheus(layout)
    replace(layout.api_settings, api_settings(settings), 0o600)  # an API key may be in it
    replace(layout.supervisor, supervisord_conf(layout, programs(layout, settings)), 0o600)
    loaded = Loaded(layout.home / "run")
    loaded.configured("api", digest([layout.api_settings]))
    return loaded


def configure_nginx(layout: Layout, settings: Settings, reach: Reach | None = None) -> Loaded:
    """Write nginx's part alone; see `configure`. `reach`: less than the settings allow."""
    reach = reach or Reach.of(settings)
    for each in (layout.logs, layout.home / "run"):
        each.mkdir(parents=True, exist_ok=True)
    folder = layout.home / "nginx"
    (folder / "conf").mkdir(parents=True, exist_ok=True)
    logs = folder / "logs"
    if logs.is_dir() and not logs.is_symlink():
        shutil.rmtree(logs)
    if logs.is_symlink() and logs.readlink() != layout.logs:  # the stack's home was moved, or copied
        logs.unlink()
    if not logs.is_symlink():
        logs.symlink_to(layout.logs)
    for name in ("nginx.conf", "mime_types.conf", "problem.conf"):
        replace(folder / "conf" / name, (ROOT / "nginx" / name).read_text())
    built = _how_nginx_is_built()
    if settings.trusted_proxies and "http_realip_module" not in built:
        proxies = ",".join(map(str, settings.trusted_proxies))
        raise StackError(f"TRUSTED_PROXIES={proxies}: allowed is none, since this nginx lacks http_realip_module")
    locations = folder / "conf" / "locations"
    shutil.rmtree(locations, ignore_errors=True)
    locations.mkdir()
    if grafana := grafana_server.installed(layout):
        address = f"http://127.0.0.1:{grafana.port.number}"
        page = f"location /grafana/ {{\n  proxy_pass {address};\n}}\n"
        live = f"location = /grafana/api/live/ws {{\n  set $upgrade $http_upgrade;\n  proxy_pass {address};\n}}\n"
        _write(locations, {"grafana.conf": page + live})
    user = "user nobody nogroup;\n" if os.getuid() == 0 else ""
    files = {
        "environment.conf": f"{user}daemon off;\nworker_processes auto;\nworker_rlimit_nofile {FILES};\n"
        f'pid "{layout.home}/run/nginx.pid";\nerror_log stderr warn;\n',
        "http.conf": KEEPING_IDLE if keeps_idle(built) else "",
        "listen.conf": listening(layout, to_others=reach.to_others),
        "listen_status.conf": f"listen 127.0.0.1:{layout.nginx_status.number};\n",
    }
    derived = nginx.for_processes(settings, f"127.0.0.1:{layout.api.number}", reach.idle_ms)
    _write(folder / "conf", files | derived)
    loaded = Loaded(layout.home / "run")
    loaded.configured("nginx", digest((folder / "conf").rglob("*.conf")))
    return loaded


def listening(layout: Layout, *, to_others: bool) -> str:
    """Where nginx listens. A reload opens and closes the second one while the first stays: without `reuseport` nobody
    can listen on every address while somebody listens on one of them."""
    addresses = [f"127.0.0.1:{layout.http.number}", *([f"{layout.http.number}"] if to_others else [])]
    return "".join(f"listen {address} reuseport backlog=4096;\n" for address in addresses)


def keeps_idle(built: str) -> bool:
    """Whether this nginx, as `nginx -V` describes it, can keep clients' idle connections at a reload."""
    version = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", built)
    return version is not None and tuple(map(int, version.groups())) >= (1, 27, 4)


def _how_nginx_is_built() -> str:
    """Its version and its modules. Raises `StackError` where it can't be asked."""
    program = find("nginx") or "nginx"
    try:
        done = subprocess.run([program, "-V"], capture_output=True, text=True)
    except OSError as error:
        raise StackError(f"{program}: {error.strerror}") from None
    return done.stderr


def _prometheus(layout: Layout) -> None:
    folder = layout.home / "prometheus"
    replace(folder / "prometheus.yml", (ROOT / "prometheus" / "prometheus.yml").read_text())
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
        replace(folder / name, text)
