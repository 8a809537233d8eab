"""How a member's container starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

MEMBER = Path(__file__).resolve().parents[2] / "mongo/docker/member.sh"


@pytest.mark.parametrize(
    ("kernel", "tunables"),
    [
        ("6.1.0-18-amd64", "the image's"),
        ("6.18.9", "the image's"),
        ("6.19.0-rc1", "glibc.pthread.rseq=1"),
        ("6.19.14-200.fc43.x86_64", "glibc.pthread.rseq=1"),
        ("7.0.0-14-generic", "glibc.pthread.rseq=1"),
        ("7.0.13", "glibc.pthread.rseq=1"),
        ("7.0.14", "the image's"),
        ("7.1", "the image's"),
        ("odd", "the image's"),
    ],
)
def test_kernels_that_mongodb_8_crashes_on_get_its_remedy(tmp_path: Path, kernel: str, tunables: str) -> None:
    programs = {"uname": f"echo {kernel}", "install": "true", "docker-entrypoint.sh": 'echo "$GLIBC_TUNABLES"'}
    for name, code in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GLIBC_TUNABLES": "the image's"}
    done = subprocess.run([MEMBER, "--replSet=rs0"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tunables
