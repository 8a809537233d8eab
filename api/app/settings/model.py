"""Settings, from the environment, `.env` or secret files; a wrong one is refused in one line."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.settings import env_file
from app.settings.errors import SettingsError, describe, shown
from app.settings.lists import Networks, Origins
from app.settings.mongodb_url import database_of, masked, options_of, secrets_of
from app.settings.stack import StackSettings
from sluice import Demand, Driver, Options, largest_pool, url_options

PoolProfile = Literal["default", "high-traffic", "low-traffic"]
TimeoutProfile = Literal["default", "aggressive", "conservative"]

POOL_PROFILES: dict[str, dict[str, int]] = {
    "default": {"max_pool_size": 100, "min_pool_size": 10},
    "high-traffic": {"max_pool_size": 200, "min_pool_size": 20},
    "low-traffic": {"max_pool_size": 50, "min_pool_size": 5},
}
_TIMEOUTS = ("connect_timeout_ms", "socket_timeout_ms", "server_selection_timeout_ms")
TIMEOUT_PROFILES: dict[str, dict[str, int]] = {
    "default": dict(zip(_TIMEOUTS, (5_000, 10_000, 5_000), strict=True)),
    "aggressive": dict(zip(_TIMEOUTS, (2_000, 5_000, 3_000), strict=True)),
    "conservative": dict(zip(_TIMEOUTS, (10_000, 30_000, 10_000), strict=True)),
}
ENV_FILES = (Path(__file__).parents[3] / ".env", Path(".env"))
"""What is in the second wins over the first, and the environment over both."""
SECRETS = ("mongodb_url", "monitoring_url", "api_key")
_CODEC = {"tz_aware": True, "uuidRepresentation": "standard"}
"""How values are read, unless the URL says otherwise: times with their zone."""
_ADDRESS = re.compile(r"unix:.+|fd://[0-9]+|(?:[^:/\s]+|\[[0-9a-fA-F:.]+\]|)(?::([0-9]{1,5}))?")
_API_KEY = re.compile(r"[!-~]+")
"""What every client sends in a header as the same bytes."""

Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]
Count = Annotated[int, Field(ge=1, le=100_000)]
CountOrNone = Annotated[int, Field(ge=0, le=100_000)]


def _bind(text: str) -> str:
    for address in text.split(","):
        found = _ADDRESS.fullmatch(address.strip())
        if not found or not address.strip() or int(found[1] or 0) > 65_535:
            raise ValueError("no address")
    return text


def _stats_dir() -> Path:
    """Shared memory where there is some, one folder per user."""
    shared = Path("/dev/shm")  # noqa: S108 - the folder is checked to be ours before it is used
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / f"sluice-{os.getuid()}"


def _processors() -> int:
    """Those that this process may use, where the system tells (not macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _not_mongodbs_own(name: str) -> str:
    """They keep no schema, and `local` isn't replicated: no write to it can be repeated."""
    if name in ("admin", "config", "local"):
        raise ValueError("reserved")
    return name


class Settings(BaseSettings):
    """Every setting of the service; `MAX_POOL_SIZE` in the environment is `max_pool_size` here."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    mongodb_url: SecretStr = SecretStr("mongodb://localhost:27017")
    mongodb_url_file: Path | None = None
    monitoring_url: SecretStr | None = None
    monitoring_url_file: Path | None = None
    database_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r'^[^/\\. "$*<>:|?\x00-\x1f]+$',
            description=r'1 to 63 characters, none of / \ . " $ * < > : | ? and space;'
            " admin, config and local are MongoDB's own",
        ),
        AfterValidator(_not_mongodbs_own),
    ] = "sluice"
    mongodb_driver: Driver = "pymongo"

    pool_profile: PoolProfile = "default"
    max_pool_size: Count = 100
    min_pool_size: CountOrNone = 10
    max_idle_time_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 30_000
    wait_queue_timeout_ms: Milliseconds = 5_000
    wait_queue_multiple: Count = 5

    coalesce_lanes: Annotated[int, Field(ge=1, le=1_000)] = 2
    coalesce_batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    coalesce_batch_bytes: Annotated[int, Field(ge=1_024, le=32 << 20)] = 4 << 20

    timeout_profile: TimeoutProfile = "default"
    connect_timeout_ms: Milliseconds = 5_000
    socket_timeout_ms: Milliseconds = 10_000
    server_selection_timeout_ms: Milliseconds = 5_000
    heartbeat_frequency_ms: Annotated[int, Field(ge=500, le=3_600_000)] = 10_000
    request_timeout_ms: Milliseconds = 10_000

    connection_budget: Count | None = None
    api_containers: Count = 1
    api_name: Annotated[str, Field(min_length=1)] | None = None

    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    idempotency_key_ttl: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400
    max_body_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 1 << 20
    max_requests_in_progress: Count = 300
    cors_origins: Origins
    trusted_proxies: Networks

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    log_file: Path | None = None
    access_log: Literal["off", "problems", "all"] = "problems"
    slow_operation_ms: Milliseconds = 100

    stats_dir: Path = Field(default_factory=_stats_dir)
    stats_cache_ms: Annotated[int, Field(ge=0, le=60_000)] = 1_000

    workers: Count = Field(default_factory=_processors)
    bind: Annotated[
        str,
        AfterValidator(_bind),
        Field(description="host:port with a port up to 65535, unix:path or fd://number, or several with commas"),
    ] = "127.0.0.1:8000"
    preload: bool = False
    max_requests: Annotated[int, Field(ge=0, le=100_000_000)] = 1_000
    max_requests_jitter: Annotated[int, Field(ge=0, le=100_000_000)] = 100
    timeout: Annotated[int, Field(ge=1, le=3_600)] = 30
    graceful_timeout: Annotated[int, Field(ge=1, le=3_600)] = 30
    keep_alive: Annotated[int, Field(ge=1, le=3_600)] = 5
    worker_tmp_dir: Path = Field(default_factory=lambda: _stats_dir().parent)
    worker_connections: Count = 1_000

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Profiles are starting points, files hold secrets, and a connection string may name the database."""
        for name in SECRETS:
            file = f"{name}_file"
            if given.get(name) and given.get(file):
                given.pop(_weaker(name, file))
            if given.get(file):
                given[name] = _read_secret(name, str(given[file]))
        if (named := database_of(given.get("mongodb_url"))) is not None:
            given.setdefault("database_name", named)
        pool = dict(POOL_PROFILES.get(given.get("pool_profile", "default"), {}))
        most = str(given.get("max_pool_size", ""))
        if pool and most.isdecimal():  # who wants a smaller pool wants a smaller minimum
            pool["min_pool_size"] = min(pool["min_pool_size"], int(most))
        timeouts = TIMEOUT_PROFILES.get(given.get("timeout_profile", "default"), {})
        return pool | timeouts | given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.api_key is not None and not _API_KEY.fullmatch(self.api_key.get_secret_value()):
            raise ValueError("API_KEY='***': allowed are printable ASCII characters but for spaces")
        if self.min_pool_size > self.max_pool_size:
            raise ValueError(
                f"MIN_POOL_SIZE={self.min_pool_size}: allowed is 0 to MAX_POOL_SIZE, which is {self.max_pool_size}"
                f" (POOL_PROFILE={self.pool_profile})"
            )
        options_of(self.mongodb_url.get_secret_value())
        if self.monitoring_url is not None:
            try:
                options_of(self.monitoring_url.get_secret_value())
            except ValueError as error:
                raise ValueError(str(error).replace("MONGODB_URL", "MONITORING_URL", 1)) from None
        return self

    def __repr__(self) -> str:
        return f"Settings(mongodb_url={masked(self.mongodb_url.get_secret_value())!r}, workers={self.workers})"

    __str__ = __repr__

    @cached_property
    def secrets(self) -> frozenset[str]:
        """Texts that may appear in no log."""
        urls = [url.get_secret_value() for url in (self.mongodb_url, self.monitoring_url) if url is not None]
        key = {self.api_key.get_secret_value()} if self.api_key is not None else set()
        return frozenset(key.union(*map(secrets_of, urls)))

    @property
    def demand(self) -> Demand:
        """The connections that this configuration may open to each member."""
        return Demand(self.api_containers, self.workers, self.max_pool_size)

    def options(self) -> Options:
        """What `sluice` needs of it."""
        url = self.mongodb_url.get_secret_value()
        in_url = {name.lower() for name, _ in url_options(url)}
        return Options(
            url=url,
            database=self.database_name,
            monitoring_url=self.monitoring_url.get_secret_value() if self.monitoring_url is not None else None,
            driver=self.mongodb_driver,
            max_pool_size=self.max_pool_size,
            min_pool_size=self.min_pool_size,
            max_idle_time=self.max_idle_time_ms / 1000 or None,
            connect_timeout=self.connect_timeout_ms / 1000,
            socket_timeout=self.socket_timeout_ms / 1000,
            server_selection_timeout=self.server_selection_timeout_ms / 1000,
            heartbeat_frequency=self.heartbeat_frequency_ms / 1000,
            wait_queue_timeout=self.wait_queue_timeout_ms / 1000,
            wait_queue_multiple=self.wait_queue_multiple,
            lanes=self.coalesce_lanes,
            batch=self.coalesce_batch,
            batch_bytes=self.coalesce_batch_bytes,
            slow_operation=self.slow_operation_ms / 1000,
            planned_connections=self.demand.connections,
            client={name: value for name, value in _CODEC.items() if name.lower() not in in_url},
        )

    def check_start(self) -> None:
        """What only matters to who really starts the service: the connection budget, and what is on the disk.

        Raises `SettingsError`.
        """
        self.check_budget()
        self.check_paths()

    def check_paths(self) -> None:
        """Raises `SettingsError` for a folder or file that can't be used as it has to be."""
        try:
            self.stats_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            mine = self.stats_dir.stat().st_uid == os.getuid() and not self.stats_dir.is_symlink()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # costs figures, and no request
                return
            mine = False
        if not mine or not os.access(self.stats_dir, os.W_OK | os.X_OK):
            raise SettingsError(f"STATS_DIR={str(self.stats_dir)!r}: allowed is a folder that this user owns")
        self.check_worker_tmp_dir()
        if self.log_file is not None:
            try:
                self.log_file.parent.mkdir(parents=True, exist_ok=True)
                with self.log_file.open("ab"):
                    pass
            except OSError as error:
                allowed = f"allowed is a file that can be written to ({error.strerror})"
                raise SettingsError(f"LOG_FILE={str(self.log_file)!r}: {allowed}") from None

    def check_worker_tmp_dir(self) -> None:
        """Raises `SettingsError` where no worker could be started."""
        if not (self.worker_tmp_dir.is_dir() and os.access(self.worker_tmp_dir, os.W_OK | os.X_OK)):
            allowed = "allowed is a folder that this user may write to"
            raise SettingsError(f"WORKER_TMP_DIR={str(self.worker_tmp_dir)!r}: {allowed}")

    def check_budget(self) -> None:
        """Raises `SettingsError` for a configuration that may open more connections than there may be."""
        demand = self.demand
        if self.connection_budget is not None and demand.connections > self.connection_budget:
            largest = largest_pool(self.connection_budget, self.api_containers, self.workers)
            remedy = f"MAX_POOL_SIZE up to {largest}, or " if largest > 0 else ""
            raise SettingsError(
                f"CONNECTION_BUDGET={self.connection_budget}: {demand};"
                f" allowed is at least {demand.connections}, or {remedy}fewer WORKERS or API_CONTAINERS"
            )


def _weaker(name: str, file: str) -> str:
    """Which of a secret and its file gives way: the one from `.env` to the one from the environment."""
    there = _in_environment()
    if (name in there) == (file in there):
        raise ValueError(f"{name.upper()} and {file.upper()} are both set: allowed is one of them")
    return file if name in there else name


def _in_environment() -> set[str]:
    """The names of fields that the environment sets."""
    return {name.lower() for name, value in os.environ.items() if value}


def _read_secret(name: str, path: str) -> str:
    try:
        text = Path(path).read_text().strip()
        if not text:  # an empty key would let everybody in
            raise OSError(0, "it is empty")
        return text
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        where = shown(path) if "/" in path else "***"  # which is the secret itself, rather
        raise ValueError(f"{name.upper()}_FILE={where!r}: allowed is a readable file ({reason})") from None


NAMES = frozenset(name.upper() for model in (Settings, StackSettings) for name in model.model_fields)
"""Every setting's name, the stack's included."""


def from_files(files: Sequence[Path] = ENV_FILES) -> dict[str, str]:
    """What `.env` files set and the environment doesn't, by the field's name. Raises `SettingsError`."""
    texts: dict[str, str] = {}
    for file in files:
        texts |= env_file.read(file, NAMES)
    there = _in_environment()
    return {name.lower(): text for name, text in texts.items() if text and name.lower() not in there}


def load(**given: Any) -> Settings:
    """Read the settings; what is `given` wins. `_env_file` instead of `ENV_FILES`. Raises `SettingsError`."""
    file: Path | Sequence[Path] | None = given.pop("_env_file", ENV_FILES)
    return read(() if file is None else (file,) if isinstance(file, Path) else file, **given)


def read(files: Sequence[Path], defaults: Mapping[str, str] = MappingProxyType({}), **given: Any) -> Settings:
    """What is `given` wins over the environment, that over the files, those over `defaults`. Raises `SettingsError`."""
    there = _in_environment()
    weaker = {name: text for name, text in defaults.items() if name not in there}
    try:
        return Settings(**(weaker | from_files(files) | given))
    except ValidationError as error:
        raise describe(error, Settings) from None
