"""Grafana beside the native stack, where there is one on PATH; no package of Debian's has it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from stack.home import ROOT, StackError
from stack.layout import Layout, Port


@dataclass(frozen=True)
class Grafana:
    """An installed Grafana: what starts its server, and the folder with its defaults and web pages."""

    server: list[str]
    home: Path
    port: Port

    @property
    def command(self) -> list[str]:
        return [*self.server, "--homepath", str(self.home)]


def command_on_path() -> list[str] | None:
    """What starts the Grafana on PATH: `grafana server`, or `grafana-server`, which Grafana 13 no longer has."""
    if grafana := shutil.which("grafana"):
        return [grafana, "server"]
    if server := shutil.which("grafana-server"):
        return [server]
    return None


def installed(layout: Layout) -> Grafana | None:
    """The one on PATH, if the stack has a port for it. Raises `StackError` when it has no home."""
    server = command_on_path()
    if server is None or layout.grafana is None:
        return None
    program = Path(server[0])
    homes = (program.resolve().parent.parent, Path("/usr/share/grafana"))
    for home in homes:
        if (home / "conf" / "defaults.ini").is_file():
            return Grafana(server, home, layout.grafana)
    places = " nor ".join(str(home) for home in homes)
    raise StackError(f"{program}: neither {places} has the conf/defaults.ini that Grafana needs; mend it or PATH")


def environment(layout: Layout, grafana: Grafana) -> dict[str, str]:
    """Its settings: the dashboards of Compose, on this stack's Prometheus, behind nginx; anybody may look."""
    folder = layout.home / "grafana"
    return {
        "GF_PATHS_DATA": str(folder / "data"),
        "GF_PATHS_LOGS": str(folder / "logs"),
        "GF_PATHS_PLUGINS": str(folder / "plugins"),
        "GF_PATHS_PROVISIONING": str(ROOT / "grafana" / "provisioning"),
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(grafana.port.number),
        "GF_SERVER_ROOT_URL": "%(protocol)s://%(domain)s/grafana/",
        "GF_SERVER_SERVE_FROM_SUB_PATH": "true",
        "GF_SECURITY_ADMIN_PASSWORD__FILE": str(password(layout)),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(ROOT / "grafana" / "dashboards" / "overview.json"),
        "SLUICE_DASHBOARDS": str(ROOT / "grafana" / "dashboards"),
        "PROMETHEUS_URL": f"http://127.0.0.1:{layout.prometheus.number}",
    }


def password(layout: Layout) -> Path:
    """The file with the password of Grafana's `admin`."""
    return layout.secrets / "grafana" / "admin_password"
