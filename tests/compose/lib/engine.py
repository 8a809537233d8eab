"""A Docker engine of the tests' own: in a folder of its own, on a bridge of its own, gone without a trace."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from stack.install import InstallError, find, install_mongod, install_programs

HERE = Path(__file__).resolve().parent
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
BUILD_SECONDS = 400
LOCK = Path("/run/lock")
"""Itself locked, so that no file stays: one engine may run, since each leaves the firewall's rules as it found them."""
NO_RULES = {
    b"*filter": b":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]",
    b"*nat": b":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]",
}
"""What `iptables-save` leaves out where nobody has used a table yet."""


class NoEngineError(Exception):
    """Why this machine can't run these tests, in a sentence."""


class Engine:
    """A running dockerd with stand-ins for the images of docker-compose.yml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bridge = f"sluice{os.getpid() % 1_000_000}"
        self._subnet = random.randrange(16, 240)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._links: set[str] = set()
        self._rules = b""
        self._lock: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For every `docker` command: this engine, and Compose from the engine's folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        return kept | {
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_CONFIG": str(self.folder / "images"),  # where build.sh puts the plugins
        }

    def start(self, mongod: Path) -> None:
        """Install and start an engine, build the stand-ins; waits for another's end.

        Raises `NoEngineError` where that isn't possible.
        """
        if os.getuid() != 0 or find("apt-get") is None or not SOURCES.exists():
            raise NoEngineError("they need root and Debian's packages")
        try:
            install_programs(["dockerd", "docker", "mmdebstrap", "iptables", "ip"])
            install_mongod(mongod)
        except InstallError as error:
            raise NoEngineError(str(error)) from error
        self._lock = os.open(LOCK, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._start_daemon()
        log = self.folder / "build.log"
        with log.open("wb") as output:
            try:
                built = subprocess.run(
                    [HERE.parent / "standins/build.sh", self.folder / "images", mongod],
                    env=self.environment, stdout=output, stderr=output, timeout=BUILD_SECONDS,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                built = -1
        if built != 0:
            raise NoEngineError(f"the stand-in images can't be built: {_last_line(log)}")

    def _start_daemon(self) -> None:
        self._links = _bridges()
        self._rules = _output("iptables-save")
        for table, chains in NO_RULES.items():
            if table not in self._rules:
                self._rules += b"\n".join((table, chains, b"COMMIT\n"))
        address = f"10.213.{self._subnet}.1/24"
        _check("ip", "link", "add", "name", self._bridge, "type", "bridge")
        _check("ip", "address", "add", address, "dev", self._bridge)
        _check("ip", "link", "set", self._bridge, "up")
        self._run_daemon()

    def _run_daemon(self) -> None:
        log = self.folder / "dockerd.log"
        with log.open("ab") as output:
            self._daemon = subprocess.Popen(
                [
                    find("dockerd") or "dockerd",
                    "--host", f"unix://{self.folder}/docker.sock", "--pidfile", str(self.folder / "docker.pid"),
                    "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "run"),
                    "--containerd-namespace", self._bridge, "--containerd-plugins-namespace", f"{self._bridge}-plugins",
                    "--bridge", self._bridge,
                    "--default-address-pool", f"base=10.214.{self._subnet // 16 * 16}.0/20,size=26",
                ],
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 60
        while subprocess.run(["docker", "info"], env=self.environment, capture_output=True).returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > end:
                raise NoEngineError(f"dockerd does not start: {_last_line(log)}")
            time.sleep(0.2)

    def restart(self) -> None:
        """End the engine, and with it all containers, and start it again: what a reboot does."""
        assert self._daemon is not None
        self._daemon.terminate()
        self._daemon.wait(60)
        self._run_daemon()

    def docker(self, *arguments: str, timeout: float = 60) -> str:
        """Run a docker command; its output. Raises `CalledProcessError`."""
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        if done.returncode != 0:
            sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
        return done.stdout

    def stop(self) -> None:
        """Stop the engine and remove its processes, mounts, bridges, rules and files."""
        if self._daemon is not None:
            running = subprocess.run(["docker", "ps", "-q"], env=self.environment, capture_output=True, text=True)
            if names := running.stdout.split():
                subprocess.run(["docker", "kill", *names], env=self.environment, capture_output=True)
            self._daemon.terminate()
            try:
                self._daemon.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self._daemon.pid, signal.SIGKILL)
                self._daemon.wait()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", line.split()[1]], capture_output=True)
        for link in _bridges() - self._links:
            subprocess.run(["ip", "link", "delete", link], capture_output=True)
        if self._rules and "docker0" not in self._links:  # else another engine's rules may have changed meanwhile
            subprocess.run(["iptables-restore"], input=self._rules, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def _bridges() -> set[str]:
    return {path.parent.name for path in Path("/sys/class/net").glob("*/bridge")}


def _output(*command: str) -> bytes:
    return subprocess.run([find(command[0]) or command[0], *command[1:]], capture_output=True).stdout


def _check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoEngineError(f"{' '.join(command)}: {done.stderr.strip()}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"
