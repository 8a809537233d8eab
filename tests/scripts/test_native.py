"""What the native stack finds in its way: a folder that isn't its own, a link that leads nowhere."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from layout import Layout, StackError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    layout = Layout.from_environment()
    yield layout
    if layout.shared.is_symlink() or layout.shared.is_file():
        layout.shared.unlink()
    shutil.rmtree(layout.shared, ignore_errors=True)


def another_users(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)


def open_to_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def link_elsewhere(folder: Path) -> None:
    folder.symlink_to("/tmp")  # noqa: S108 nothing is written


def link_to_nothing(folder: Path) -> None:
    folder.symlink_to("/nowhere")


@pytest.mark.parametrize("make", [another_users, open_to_others, link_elsewhere, link_to_nothing, Path.touch])
def test_shared_memory_that_others_may_change_is_refused(layout: Layout, make: Callable[[Path], None]) -> None:
    if make is another_users and os.getuid() != 0:
        pytest.skip("only root can make another user's folder")
    make(layout.shared)
    with pytest.raises(StackError, match=f"^{layout.shared}: allowed is a folder that this user owns and nobody else"):
        layout.check_shared()


def test_shared_memory_of_our_own_is_used_again(layout: Layout) -> None:
    layout.check_shared()
    layout.make_shared()
    layout.make_shared()
    assert layout.shared.stat().st_mode & 0o777 == 0o700


def test_a_link_to_a_mongod_that_is_gone_is_replaced(tmp_path: Path) -> None:
    # By its path: the root's `tests` may have been taken for the package of this name.
    mongod = runpy.run_path(str(ROOT / "api/tests/replica_set.py"))["find_mongod"]()
    (tmp_path / "path").mkdir()
    (tmp_path / "path/mongod").symlink_to(mongod)
    target = tmp_path / "bin/mongod"
    target.parent.mkdir()
    target.symlink_to(tmp_path / "gone")
    command = [sys.executable, str(ROOT / "scripts/native/install.py"), "--mongod", str(target)]
    environment = {**os.environ, "PATH": f"{tmp_path}/path:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.resolve() == Path(mongod).resolve()
