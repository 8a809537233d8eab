"""What drills do to networks and file systems of their own, in such ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drill import namespaces

ROOT = Path(__file__).parents[2]
REFUSED = """
import asyncio, socket
from drill import namespaces
from drill.network import rules

async def main():
    namespaces.furnish()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        refused = ("INPUT", "-p", "tcp", "--dport", f"{address[1]}", "--syn", "-j", "REJECT")
        socket.create_connection(address, 5).close()
        async with rules(refused):
            try:
                socket.create_connection(address, 5)
            except ConnectionRefusedError:
                print("refused")
        socket.create_connection(address, 5).close()

asyncio.run(main())
"""
FULL = """
import sys
from pathlib import Path
from drill import namespaces
from drill.resources import full

folder = Path(sys.argv[1])
namespaces.mount(folder, 1)
with full(folder):
    try:
        (folder / "file").write_bytes(b"x")
    except OSError as error:
        print(error.strerror)
(folder / "file").write_bytes(b"x" * 100_000)
print(sorted(path.name for path in folder.iterdir()))
namespaces.unmount(folder)
"""


def inside(code: str, *arguments: str) -> str:
    if reason := namespaces.why_not():
        pytest.skip(reason)
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'api'}"}
    command = ["unshare", "--net", "--mount", sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_port_refuses_as_long_as_it_is_told_to() -> None:
    assert inside(REFUSED) == "refused\n"


def test_a_full_disk_is_full_to_the_last_byte_and_free_again(tmp_path: Path) -> None:
    assert inside(FULL, str(tmp_path)) == "No space left on device\n['file']\n"
    assert list(tmp_path.iterdir()) == []
