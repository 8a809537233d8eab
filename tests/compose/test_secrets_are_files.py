"""No secret gets into a container's environment or command line, where `docker inspect` shows it; needs no engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings.model import SECRETS

ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yml", "docker-compose.prod.yml")
SECRET = re.compile(r"URL|KEY|PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL", re.IGNORECASE)
FOLDERS = ("/secrets/", "/run/secrets/", "/run/mongo/")
NO_SECRETS = {
    "GF_SERVER_ROOT_URL": "where Grafana is",
    "IDEMPOTENCY_KEY_TTL": "how long a caller's key is kept",
    "PROMETHEUS_URL": "where Prometheus is",
    "SLUICE_API_KEY_IS_SET": "yes or nothing",
}
READERS = {
    "secrets": {"secrets", "mongo1", "mongo2", "mongo3", "mongo-init"},
    "api-secrets": {"mongo-init", "api", "seed"},
    "grafana-secrets": {"secrets", "grafana"},
}
"""Which services see a volume with secrets."""
WRITERS = {("secrets", "secrets"), ("secrets", "grafana-secrets"), ("mongo-init", "api-secrets")}


class _Loader(yaml.SafeLoader):
    """Takes Compose's own tags."""


def _override(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


_Loader.add_constructor("!override", _override)


@pytest.fixture(params=FILES)
def services(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    document = yaml.load((ROOT / request.param).read_text(), _Loader)  # noqa: S506 a SafeLoader
    found: dict[str, dict[str, Any]] = document["services"]
    return found


def test_environments_name_files(services: dict[str, dict[str, Any]]) -> None:
    for service, given in services.items():
        for name, value in (given.get("environment") or {}).items():
            if not SECRET.search(name) or name in NO_SECRETS:
                continue
            place = f"{service}: {name}={value}"
            if name == "API_KEY":  # who gives it as a setting wants it so; API_KEY_FILE is the other way
                assert value is None, place
            elif name.endswith("_FILE"):
                inner = re.sub(r"^\$\{\w+:\+(.*)\}$", r"\1", str(value))
                assert inner.startswith(FOLDERS) or inner == "set", place
            else:
                assert re.fullmatch(rf"\$\{{{name}:\+set\}}", str(value)), place


def test_no_secret_is_put_into_a_command_line(services: dict[str, dict[str, Any]]) -> None:
    secret = "|".join(name.upper() for name in SECRETS)
    for service, given in services.items():
        health = (given.get("healthcheck") or {}).get("test", "")
        for part in ("command", "entrypoint"):
            assert not re.search(rf"\$\{{?({secret})\b", str(given.get(part, ""))), (service, part)
        assert not re.search(rf"{secret}|/secrets", str(health)), service


def test_volumes_with_secrets_are_seen_by_those_that_need_them_and_written_by_those_that_make_them() -> None:
    document = yaml.load((ROOT / FILES[0]).read_text(), _Loader)  # noqa: S506 a SafeLoader
    seen: dict[str, set[str]] = {name: set() for name in READERS}
    for service, given in document["services"].items():
        for volume in given.get("volumes", ()):
            name, _, rest = volume.partition(":")
            if name in READERS:
                seen[name].add(service)
                assert rest.endswith(":ro") != ((service, name) in WRITERS), (service, volume)
    assert seen == READERS
