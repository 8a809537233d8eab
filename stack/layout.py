"""Where the native stack keeps its files and which ports it uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.settings.stack import StackSettings
from stack.free_ports import free_ports
from stack.home import ROOT, Home, StackError

ENV_FILES = (ROOT / ".env", ROOT / "api" / ".env")
"""What the service reads where this stack runs it, in `api/`."""
PORT_SETTINGS = (
    "SLUICE_PORT",
    "SLUICE_API_PORT",
    "SLUICE_NGINX_STATUS_PORT",
    "SLUICE_NGINX_EXPORTER_PORT",
    "SLUICE_PROMETHEUS_PORT",
    "SLUICE_GRAFANA_PORT",
    "SLUICE_MONGO_PORT",  # the first of three
)


@dataclass(frozen=True)
class Port:
    """A port, and the setting that moves it."""

    setting: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Layout(Home):
    """One stack's folder and ports; without a port for it, there is no Grafana."""

    http: Port
    api: Port
    nginx_status: Port
    nginx_exporter: Port
    prometheus: Port
    grafana: Port | None
    mongo: tuple[Port, Port, Port]
    log_bytes: int = StackSettings.model_fields["sluice_log_max_bytes"].default

    @classmethod
    def of(cls, settings: StackSettings) -> Layout:
        """The stack of `SLUICE_HOME` with these settings; two can run side by side."""
        ports = {name: getattr(settings, name.lower()) for name in PORT_SETTINGS}
        return cls._on(cls.folder(), ports, settings.sluice_log_max_bytes)

    @classmethod
    def on_free_ports(cls, home: Path) -> Layout:
        """One beside all others, for tests and benchmark."""
        numbers = free_ports(len(PORT_SETTINGS) + 2)
        return cls._on(home, dict(zip(PORT_SETTINGS, numbers, strict=False)), cls.log_bytes)

    @classmethod
    def _on(cls, home: Path, numbers: Mapping[str, int], log_bytes: int) -> Layout:
        http, api, nginx_status, nginx_exporter, prometheus, grafana, mongo = (
            Port(setting, numbers[setting]) for setting in PORT_SETTINGS
        )
        return cls(
            home=home,
            http=http,
            api=api,
            nginx_status=nginx_status,
            nginx_exporter=nginx_exporter,
            prometheus=prometheus,
            grafana=grafana,
            mongo=(mongo, Port(mongo.setting, mongo.number + 1), Port(mongo.setting, mongo.number + 2)),
            log_bytes=log_bytes,
        )

    @property
    def ports(self) -> dict[str, Port]:
        """What listens on which port, but for Grafana, which may be left out."""
        return {
            "nginx": self.http,
            "api": self.api,
            "nginx's status": self.nginx_status,
            "nginx-exporter": self.nginx_exporter,
            "prometheus": self.prometheus,
            **{f"mongod-{port.number}": port for port in self.mongo},
        }

    @property
    def environment(self) -> dict[str, str]:
        """What leads the scripts to this stack."""
        ports = [self.http, self.api, self.nginx_status, self.nginx_exporter, self.prometheus, self.mongo[0]]
        if self.grafana:
            ports.append(self.grafana)
        return {"SLUICE_HOME": str(self.home), **{port.setting: str(port.number) for port in ports}}

    @property
    def api_settings(self) -> Path:
        """The file that the API's settings are in."""
        return self.home / "run" / "api.json"

    @property
    def api_settings_taken(self) -> Path:
        """Where the API says which of them it has taken over: the file's hash."""
        return self.home / "run" / "api.taken"

    @property
    def hosts(self) -> list[str]:
        return [f"127.0.0.1:{port.number}" for port in self.mongo]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.http.number}"

    def check_data(self) -> None:
        """Raises `StackError` where the data that are here are those of members on other ports: beside them there would
        be an empty database, without a word."""
        wanted = {port.number for port in self.mongo}
        kept = {int(folder.name) for folder in (self.home / "data").glob("*") if folder.name.isdigit()}
        if kept and not kept & wanted:
            raise StackError(
                f"SLUICE_MONGO_PORT={min(wanted)}: the data in {self.home / 'data'} are those of {min(kept)};"
                " allowed is that one, until down.sh --purge has deleted them"
            )
