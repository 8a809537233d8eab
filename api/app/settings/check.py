"""Check every setting of a stack before it starts: the service's, and those of nginx, Prometheus and Compose.

One line on standard error per mistake (then exit status 1) or warning. Settings come from the environment, which wins,
and from the given `.env` files.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from app.settings import env_file
from app.settings.errors import SettingsError, describe
from app.settings.model import NAMES, Settings, from_files, read
from app.settings.names import near_names
from app.settings.stack import ENVIRONMENT_ONLY, StackSettings

DEFAULTS = {
    "workers": "2",
    # Gunicorn's usual 1000 would replace a worker every second of a load test, and halve what it carries.
    "max_requests": "100000",
    "max_requests_jitter": "10000",
}
"""Where a stack's defaults aren't the service's."""
MONGODB = ("MONGODB_URL", "MONGODB_URL_FILE", "MONITORING_URL", "MONITORING_URL_FILE")
"""Settings of another MongoDB than the stack's own."""
ITS_OWN = ("BIND", "STATS_DIR", "LOG_FILE")
"""Settings that a stack makes itself."""
MOUNTED = ("grafana", "mongo", "nginx", "prometheus")
"""Folders of the repository that Compose mounts."""
ANOTHER = "this stack runs a MongoDB of its own; for another, run the service alone, in api/: gunicorn main:app"


@dataclass(frozen=True)
class Checked:
    """What a stack may be started with, and what ought to be said about it, a line each."""

    settings: Settings
    stack: StackSettings
    warnings: tuple[str, ...]


def check(files: Sequence[Path], *, containers: bool = False, production: bool = False) -> Checked:
    """Check what the environment and these `.env` files set for a stack.

    `containers`: Docker Compose's; `production`: with docker-compose.prod.yml. Starts nothing, asks no server; takes
    the address of another MongoDB out of the environment. Raises `SettingsError` with every mistake.
    """
    mistakes: list[str] = []
    theirs = sorted(name for name, value in os.environ.items() if name.upper() in MONGODB and value)
    warnings = [f"{name} in the environment is not used: {ANOTHER}" for name in theirs]
    for name in theirs:
        del os.environ[name]
    set_in: dict[Path, dict[str, str]] = {}
    for file in files:
        try:
            set_in[file] = env_file.read(file, NAMES)
        except SettingsError as error:  # the others, and the environment, may be wrong as well
            mistakes += error.mistakes
    all_read = len(set_in) == len(files)
    for file, texts in set_in.items():
        named = [name for name, text in texts.items() if text]
        mistakes += [f"{file}: {name} is not for this: {ANOTHER}" for name in MONGODB if name in named]
        mistakes += [f"{file}: {name}: allowed is it in the environment only" for name in ENVIRONMENT_ONLY & set(named)]
    settings = stack = None
    given = {name: value for name, value in from_files([*set_in]).items() if name.upper() not in MONGODB}
    try:
        settings = read((), DEFAULTS, **given)
        if all_read:  # else what they say together isn't known
            settings.check_budget()
        if not containers:
            settings.check_worker_tmp_dir()
    except SettingsError as error:
        mistakes += error.mistakes
    try:
        stack = StackSettings.model_validate(given)
    except ValidationError as error:
        mistakes += describe(error, StackSettings).mistakes
    if settings and stack and all_read:
        mistakes += _together(settings, stack, containers=containers, production=production)
    if containers:
        mistakes += [line for file in files for line in _unreadable(file.parent)]
    if mistakes or settings is None or stack is None:
        raise SettingsError(*mistakes)
    for file, texts in set_in.items():
        warnings += [f"{file}: {name} is not used: the stack makes its own" for name in ITS_OWN if texts.get(name)]
    warnings += [f"{name} in the environment is no setting: {right} is meant?" for name, right in near_names(NAMES)]
    return Checked(settings, stack, tuple(warnings))


def _together(settings: Settings, stack: StackSettings, *, containers: bool, production: bool) -> Iterator[str]:
    """What is wrong with settings that are right one by one."""
    if not containers:
        return  # where the ports are, and who may reach nginx, is the native stack's own business
    nginx = ("SLUICE_HTTPS_PORT", "SLUICE_HTTP_PORT") if production else ("SLUICE_PORT",)
    uses: dict[int, str] = {}
    for name in (*nginx, "SLUICE_PROMETHEUS_PORT", "SLUICE_GRAFANA_PORT"):
        port: int = getattr(stack, name.lower())
        if (other := uses.setdefault(port, name)) != name:
            yield f"{name}={port}: allowed is a port of its own, {other} has this one"
    if settings.api_key is None and production:
        yield "API_KEY_FILE is not set: allowed is a file with the API key that writing needs"
    elif settings.api_key is None and stack.opens_to_others:
        yield f"SLUICE_ADDRESS={stack.sluice_address!r}: allowed is loopback, or an API_KEY or API_KEY_FILE with it"


def _unreadable(repository: Path) -> Iterator[str]:
    """What containers, whose users are nobody here, can't read of the folders that they mount."""
    for name in MOUNTED:
        for path in (repository / name, *(repository / name).rglob("*")):
            wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() or path.suffix == ".sh" else 0)
            if path.exists() and path.stat().st_mode & wanted != wanted:
                yield f"{path}: allowed is what others may read, as containers must: chmod -R go+rX {' '.join(MOUNTED)}"
                return


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("check_settings", description=__doc__)
    parser.add_argument("--env-file", type=Path, action="append", default=[], metavar="FILE", help="may be missing")
    parser.add_argument("--containers", action="store_true", help="check what Docker Compose's stack reads")
    parser.add_argument("--production", action="store_true", help="and docker-compose.prod.yml")
    given = parser.parse_args(arguments)
    try:
        checked = check(given.env_file, containers=given.containers or given.production, production=given.production)
    except SettingsError as error:
        _say(error.mistakes)
        return 1
    _say(checked.warnings)
    return 0


def _say(lines: Sequence[str]) -> None:
    sys.stderr.writelines(f"sluice: {line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
