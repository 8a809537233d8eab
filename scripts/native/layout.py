"""Where the native stack keeps its files and which ports it uses."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[2]
REPLICA_SET = "rs0"
ENV_FILES = (ROOT / ".env", ROOT / "api" / ".env")
"""What the service reads where this stack runs it, in `api/`."""


class StackError(Exception):
    """Why the stack can't be started, in a sentence for people."""


@dataclass(frozen=True)
class Port:
    setting: str
    number: int


def _port(values: Mapping[str, str | None], setting: str, default: int) -> Port:
    text = values.get(setting) or str(default)
    if not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise StackError(f"{setting}={text!r}: allowed is a port, 1 to 65535")
    return Port(setting, int(text))


@dataclass(frozen=True)
class Layout:
    """One stack: everything that it writes is below `home`, but for the statistics on shared memory."""

    home: Path
    http: Port
    api: Port
    nginx_status: Port
    nginx_exporter: Port
    prometheus: Port
    mongo: tuple[Port, Port, Port]
    grafana: Port = Port("SLUICE_GRAFANA_PORT", 3000)

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
            home=Path(os.environ.get("SLUICE_HOME") or ROOT / ".sluice").resolve(),
            http=_port(values, "SLUICE_PORT", 8000),
            api=_port(values, "SLUICE_API_PORT", 8001),
            nginx_status=_port(values, "SLUICE_NGINX_STATUS_PORT", 8002),
            nginx_exporter=_port(values, "SLUICE_NGINX_EXPORTER_PORT", 9113),
            prometheus=_port(values, "SLUICE_PROMETHEUS_PORT", 9090),
            mongo=(first, Port(first.setting, first.number + 1), Port(first.setting, first.number + 2)),
            grafana=_port(values, "SLUICE_GRAFANA_PORT", 3000),
        )
        uses: dict[int, str] = {}
        for port in layout.ports.values():
            other = uses.setdefault(port.number, port.setting)
            if other != port.setting:
                raise StackError(f"{port.setting}={port.number}: allowed is a port of its own, {other} has this one")
        return layout

    @property
    def ports(self) -> dict[str, Port]:
        """What listens on which port."""
        return {
            "nginx": self.http,
            "api": self.api,
            "nginx's status": self.nginx_status,
            "nginx-exporter": self.nginx_exporter,
            "prometheus": self.prometheus,
            **{f"mongod-{port.number}": port for port in self.mongo},
            **({"grafana": self.grafana} if shutil.which("grafana-server") else {}),
        }

    @property
    def hosts(self) -> list[str]:
        return [f"127.0.0.1:{port.number}" for port in self.mongo]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.http.number}"

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def mongod(self) -> Path:
        return self.home / "bin" / "mongod"

    @property
    def supervisor(self) -> Path:
        return self.home / "supervisord.conf"

    @cached_property
    def socket(self) -> Path:
        """Supervisor's control socket; not below `home`, whose path may be too long for a socket's."""
        return self.shared / "supervisor.sock"

    @cached_property
    def shared(self) -> Path:
        """The folder on shared memory, named after `home`; made by `make_shared`."""
        base = Path("/dev/shm")  # noqa: S108 checked to be ours
        name = f"sluice-native-{os.getuid()}-{hashlib.sha256(str(self.home).encode()).hexdigest()[:12]}"
        return (base if base.is_dir() else self.home) / name

    def make_shared(self) -> None:
        """Make that folder. Raises `StackError` as `check_shared` does."""
        self.shared.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_shared()

    def check_shared(self) -> None:
        """Raises `StackError` for a folder that another user made or may change: its name can be guessed."""
        try:
            found = self.shared.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StackError(f"{self.shared}: allowed is a folder that this user owns and nobody else may change")
