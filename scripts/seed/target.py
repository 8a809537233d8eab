"""Which database to fill: the one given, else the running stack's, else the one in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from app.settings.errors import SettingsError
from app.settings.model import ENV_FILES, Settings, from_files
from app.settings.mongodb_url import database_of, masked, options_of

ROOT = Path(__file__).resolve().parents[2]


class TargetError(Exception):
    """There is nothing to fill; the text says why, without secrets."""


@dataclass(frozen=True, slots=True)
class Target:
    """A database. `url` may hold a password: show `str(target)`."""

    url: str = field(repr=False)
    database: str

    def __str__(self) -> str:
        return f"database {self.database} at {masked(self.url).partition('?')[0]}"


class _Environment(BaseSettings):
    """The few settings that matter here, from the environment and the repository's `.env`, not the caller's."""

    model_config = Settings.model_config

    mongodb_url: SecretStr | None = None
    mongodb_url_file: Path | None = None
    database_name: str | None = None


def find(url: str | None = None) -> Target:
    """The target; `url` wins over everything else. Raises `TargetError`."""
    try:
        environment = _Environment.model_validate(from_files(ENV_FILES[:1]))
    except SettingsError as error:
        raise TargetError(str(error)) from None
    url = url or _from_stack() or _from_environment(environment)
    if url is None:
        raise TargetError("no MongoDB is known: start the stack with ./scripts/up.sh, or give --url or MONGODB_URL")
    try:
        options_of(url)
    except ValueError as error:
        raise TargetError(str(error)) from None
    default = Settings.model_fields["database_name"].default
    return Target(url, environment.database_name or database_of(url) or default)


def _from_stack() -> str | None:
    home = Path(os.environ.get("SLUICE_HOME") or ROOT / ".sluice")
    secret = home / "secrets" / "mongodb_url"
    return _read(secret) if secret.is_file() else None


def _from_environment(environment: _Environment) -> str | None:
    if environment.mongodb_url is not None:
        return environment.mongodb_url.get_secret_value()
    return _read(environment.mongodb_url_file) if environment.mongodb_url_file is not None else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'not text'}") from None
