"""nginx's error log: a few lines of each kind, and how many more there were."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NGINX = Path(__file__).resolve().parents[2] / "nginx"
REFUSED = (
    "2026/11/26 10:00:0{second} [error] 12#12: *{number} connect() failed (111: Connection refused) while connecting to"
    ' upstream, client: 127.0.0.1, server: , request: "GET /users/{number} HTTP/1.1", upstream: "http://127.0.0.1:8001/"'
)


def limited(lines: list[str], tmp_path: Path) -> list[str]:
    done = subprocess.run(
        [str(NGINX / "run.sh"), str(tmp_path / "errors"), "sh", "-c", "cat >&2"],
        input="".join(f"{line}\n" for line in lines), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    return done.stderr.splitlines()


def test_a_storm_is_written_in_part_and_counted(tmp_path: Path) -> None:
    storm = [REFUSED.format(second=3, number=number) for number in range(5_000)]
    other = "2026/11/26 10:00:04 [warn] 12#12: *7 an upstream response is buffered, client: 127.0.0.1"
    later = "2026/11/26 10:00:11 [notice] 11#11: signal 1 (SIGHUP) received"
    kind = "connect() failed (#: Connection refused) while connecting to upstream"
    lines = limited([*storm, other, later], tmp_path)
    assert lines[:20] == storm[:20]
    assert lines[20:] == [
        other,
        f"2026/11/26 10:00:00 4980 more of these lines in 10 s were left out: {kind}",
        later,
    ]


def test_the_end_counts_too_and_what_is_no_line_of_nginx_passes(tmp_path: Path) -> None:
    lines = limited(["nginx: [emerg] no such file", *(REFUSED.format(second=1, number=1) for _ in range(23))], tmp_path)
    assert lines[0] == "nginx: [emerg] no such file"
    assert len(lines) == 22
    assert " 3 more of these lines " in lines[-1]


def test_lines_are_passed_on_at_once(tmp_path: Path) -> None:
    command = [str(NGINX / "run.sh"), str(tmp_path / "errors"), "sh", "-c", "echo now >&2; read -r _"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        assert process.stderr.readline() == "now\n"
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(10) == 0


def test_busybox_which_the_image_has_can_do_it() -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is missing (Debian: the package busybox)")
    command = [busybox, "awk", "-f", str(NGINX / "limit_errors.awk")]
    storm = "".join(REFUSED.format(second=1, number=number) + "\n" for number in range(100))
    lines = subprocess.run(command, input=storm, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 21
