"""Network and file systems of the drills' own, where this system allows it: what is cut off or filled there is nobody
else's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_INSIDE = "SLUICE_DRILL_NAMESPACES"
_TOOLS = ("unshare", "ip", "iptables", "setpriv", "mount")


def enter(arguments: Sequence[str]) -> None:
    """Begin again with these arguments inside of them, by util-linux's `unshare`; returns where they can't be had."""
    if inside() or why_not() is not None:
        return
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "drill", *arguments]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: "1"})  # noqa: S606


def inside() -> bool:
    return _INSIDE in os.environ


def why_not() -> str | None:
    """Why they can't be had here; None where they can, or are."""
    if inside():
        return None
    if os.getuid() != 0:
        return "only root may make namespaces"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"there is no {', no '.join(missing)}"
    trial = "ip link set lo up && iptables -A OUTPUT -m owner --gid-owner 1 -j DROP && mount -t tmpfs tmpfs /mnt"
    done = subprocess.run(["unshare", "--net", "--mount", "sh", "-c", trial], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip() or "unshare fails").splitlines()[-1]


def furnish() -> None:
    """A new network has no loopback yet."""
    _run("ip", "link", "set", "lo", "up")


def mount(folder: Path, megabytes: int) -> None:
    """A file system of this size in memory, at this folder."""
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder))


def unmount(folder: Path) -> None:
    """Also where files of it are still open."""
    _run("umount", "--lazy", str(folder))


def filter_packets(action: str, rules: Sequence[Sequence[str]]) -> None:
    """Add (`-A`) or delete (`-D`) these rules of iptables'."""
    for chain, *rule in rules:
        _run("iptables", "--wait", action, chain, *rule)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
