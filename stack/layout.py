"""Where the native stack keeps its files and which ports it uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from dotenv import dotenv_values

from stack.home import ROOT as ROOT
from stack.home import Home
from stack.home import StackError as StackError

REPLICA_SET = "rs0"
ENV_FILES = (ROOT / ".env", ROOT / "api" / ".env")
"""What the service reads where this stack runs it, in `api/`."""


@dataclass(frozen=True)
class Port:
    setting: str
    number: int


def grafana_command() -> list[str] | None:
    """What starts the Grafana on PATH: `grafana server`, or `grafana-server`, which Grafana 13 no longer has."""
    if grafana := shutil.which("grafana"):
        return [grafana, "server"]
    if server := shutil.which("grafana-server"):
        return [server]
    return None


def _port(values: Mapping[str, str | None], setting: str, default: int) -> Port:
    text = values.get(setting) or str(default)
    if not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise StackError(f"{setting}={text!r}: allowed is a port, 1 to 65535")
    return Port(setting, int(text))


def _bytes(values: Mapping[str, str | None], setting: str, default: int) -> int:
    text = values.get(setting) or str(default)
    if not text.isdecimal() or not 65_536 <= int(text) <= 1 << 40:
        raise StackError(f"{setting}={text!r}: allowed is a whole number from 65536 to {1 << 40}")
    return int(text)


@dataclass(frozen=True)
class Layout(Home):
    """One stack's folder and ports; without a port for it, there is no Grafana."""

    http: Port
    api: Port
    nginx_status: Port
    nginx_exporter: Port
    prometheus: Port
    mongo: tuple[Port, Port, Port]
    grafana: Port | None = Port("SLUICE_GRAFANA_PORT", 3000)
    log_bytes: int = 52_428_800

    @classmethod
    def from_environment(cls) -> Layout:
        """`SLUICE_HOME`, and the ports' variables, from `.env` too; two stacks can run side by side.

        Raises `StackError` for a port that is none or has two uses.
        """
        values = dotenv_values(ROOT / ".env") | os.environ
        first = _port(values, "SLUICE_MONGO_PORT", 27117)
        if first.number > 65_533:
            raise StackError(f"{first.setting}={first.number}: allowed is 1 to 65533, three ports are used")
        layout = cls(
            home=cls.folder(),
            http=_port(values, "SLUICE_PORT", 8000),
            api=_port(values, "SLUICE_API_PORT", 8001),
            nginx_status=_port(values, "SLUICE_NGINX_STATUS_PORT", 8002),
            nginx_exporter=_port(values, "SLUICE_NGINX_EXPORTER_PORT", 9113),
            prometheus=_port(values, "SLUICE_PROMETHEUS_PORT", 9090),
            mongo=(first, Port(first.setting, first.number + 1), Port(first.setting, first.number + 2)),
            grafana=_port(values, "SLUICE_GRAFANA_PORT", 3000),
            log_bytes=_bytes(values, "SLUICE_LOG_MAX_BYTES", 52_428_800),
        )
        uses: dict[int, str] = {}
        grafana = {"grafana": layout.grafana} if layout.grafana and grafana_command() else {}
        for port in (layout.ports | grafana).values():
            other = uses.setdefault(port.number, port.setting)
            if other != port.setting:
                raise StackError(f"{port.setting}={port.number}: allowed is a port of its own, {other} has this one")
        return layout

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
    def hosts(self) -> list[str]:
        return [f"127.0.0.1:{port.number}" for port in self.mongo]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.http.number}"
