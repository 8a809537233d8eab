"""Settings of the stack around the service: what only nginx, Prometheus, Compose or the scripts read."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ENVIRONMENT_ONLY = frozenset({"SLUICE_HOME", "SLUICE_RUN"})
"""What is decided before `.env` is looked at."""

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
"""Prometheus' own form: each unit at most once, the largest first."""
_SECONDS = (365 * 86_400, 7 * 86_400, 86_400, 3_600, 60, 1, 0.001)
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)([kmgt]?)i?b?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def _retention(text: str) -> str:
    """None at all would mean 15 days to Prometheus, and three hundred years overflow its number."""
    found = _DURATION.fullmatch(text) if len(text) <= 40 else None
    units = zip(found.groups(default="0"), _SECONDS, strict=True) if found else ()
    if not 0 < sum(int(number) * unit for number, unit in units) <= 100 * _SECONDS[0]:
        raise ValueError("no duration")
    return text


def _address(text: str) -> str:
    ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)  # raises `ValueError`
    return text


def _processors(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text) or not 0.01 <= float(text) <= 1_024:
        raise ValueError("no number of processors")
    return text


def _memory(text: str) -> str:
    found = _BYTES.fullmatch(text)
    if found is None or not 6 << 20 <= float(found[1]) * _FACTORS[found[2].lower()] <= 1 << 50:
        raise ValueError("no size")
    return text


Port = Annotated[int, Field(ge=1, le=65_535, description="a port, 1 to 65535")]
Retention = Annotated[
    str,
    AfterValidator(_retention),
    Field(description="a duration up to 100y: a number and y, w, d, h, m, s or ms, or several such, as in 1w3d"),
]
Address = Annotated[str, AfterValidator(_address), Field(description="the IP address of an interface, or 0.0.0.0")]
Processors = Annotated[str, AfterValidator(_processors), Field(description="a number from 0.01 to 1024, as in 1.5")]
Memory = Annotated[
    str, AfterValidator(_memory), Field(description="a number with b, k, m, g or t, 6m at least, as in 512m")
]


class StackSettings(BaseSettings):
    """Those of `.env.example` that are not in `Settings`; each stack reads some of them."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    sluice_run: Literal["native", "docker"] | None = None
    sluice_home: Path | None = None
    sluice_port: Port = 8000
    sluice_prometheus_port: Port = 9090
    sluice_grafana_port: Port = 3000

    sluice_api_port: Port = 8001
    sluice_nginx_status_port: Port = 8002
    sluice_mongo_port: Annotated[int, Field(ge=1, le=65_533, description="1 to 65533, three ports are used")] = 27117
    sluice_nginx_exporter_port: Port = 9113
    sluice_log_max_bytes: Annotated[int, Field(ge=65_536, le=1 << 40)] = 50 << 20

    compose_project_name: str | None = None  # Compose checks it itself
    sluice_address: Address = "127.0.0.1"
    prometheus_retention: Retention = "7d"

    tls_directory: Path | None = None
    sluice_https_port: Port = 443
    sluice_http_port: Port = 80
    api_cpus: Processors = "2"
    api_memory: Memory = "512m"
    mongo_cpus: Processors = "2"
    mongo_memory: Memory = "2g"
    nginx_cpus: Processors = "2"

    @property
    def opens_to_others(self) -> bool:
        """Whether nginx is told to listen beyond loopback."""
        return not ip_address(self.sluice_address.strip("[]")).is_loopback
