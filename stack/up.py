"""Start the native stack and wait until it is ready. Called by scripts/up.sh, in the stack's virtual environment."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main`: nothing runs yet, and where it was helps nobody

# ruff: noqa: E402
import argparse
import os
import subprocess
import sys
import threading
import time

from app.settings.check import Checked, check
from app.settings.errors import SettingsError
from stack.home import StackError
from stack.install import InstallError, install_mongod, install_programs
from stack.layout import ENV_FILES, Layout
from stack.output import say, tell
from stack.ports import check_ports
from stack.start import start
from stack.stop import stop
from stack.summary import summary
from stack.supervise import Supervisor

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_interrupted = threading.Event()
"""Kept, since an exception is lost where it meets a destructor or a callback, as there are in the driver."""


def main() -> int:
    parser = argparse.ArgumentParser(
        "up.sh", usage="up.sh [-d] [--native|--docker] [--driver pymongo|motor] [--workers N]"
    )
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--driver", choices=("pymongo", "motor"))
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    for number in STOPPING:
        signal.signal(number, _interrupt)
    try:
        layout = _up(_checked(given.driver, given.workers))
        if not given.detach:
            _follow(layout)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(f"up: {mistake}", file=sys.stderr)
        return 1
    except (StackError, InstallError, OSError) as error:
        print(f"up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("up: interrupted", file=sys.stderr)
        return 130
    return 0


def _checked(driver: str | None, workers: int | None) -> Checked:
    """The settings of the whole stack. Raises `SettingsError`."""
    if driver is not None:
        os.environ["MONGODB_DRIVER"] = driver
    if workers is not None:
        os.environ["WORKERS"] = str(workers)
    checked = check(ENV_FILES)
    for warning in checked.warnings:
        print(f"up: {warning}", file=sys.stderr)
    return checked


def _up(checked: Checked) -> Layout:
    """Bring the stack up; interrupted, it is left as it was found. Raises `StackError` and `InstallError`."""
    started = time.monotonic()
    settings = checked.settings
    layout = Layout.of(checked.stack)
    with layout.alone():
        layout.check_shared()
        layout.check_data()
        layout = check_ports(layout, opens_to_others=settings.api_key is not None)
        ran_before = Supervisor(layout).alive
        install_programs(["nginx", "prometheus", "prometheus-nginx-exporter"])
        install_mongod(layout.mongod)
        try:
            start(layout, settings)
            if _interrupted.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if not ran_before:
                _stop(layout)
            raise
    tell(summary(layout, time.monotonic() - started))
    if settings.api_key is None:
        tell("\nnginx listens on loopback only, since there is no API_KEY.")
    return layout


def _follow(layout: Layout) -> None:
    """Show the API's log until Ctrl-C, then stop everything."""
    follower = subprocess.Popen(["tail", "-n", "20", "-F", str(layout.logs / "api.log")])
    try:
        follower.wait()
    except KeyboardInterrupt:
        pass
    finally:
        follower.kill()
        follower.wait()
        with layout.alone():
            _stop(layout)


def _interrupt(*_: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _stop(layout: Layout) -> None:
    for number in STOPPING:  # once is enough
        signal.signal(number, signal.SIG_IGN)
    say("stopping")
    stop(layout)


if __name__ == "__main__":
    sys.exit(main())
