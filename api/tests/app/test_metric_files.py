"""The files of metrics when there is no room for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict

from app.observe.metric_files import SIZE, make_empty, make_room, opened


def holes(path: Path) -> int:
    status = path.stat()
    return status.st_size - status.st_blocks * 512


@pytest.mark.parametrize("portable", [False, True])
def test_no_page_is_missing_however_large_the_file_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portable: bool
) -> None:
    if portable:
        monkeypatch.delattr(os, "posix_fallocate")
    path = tmp_path / "counter_0.db"
    file = opened(path)
    for number in range(3000):
        key = f"key {number} {'x' * (number % 90)}"
        make_room(path, key)
        assert holes(path) <= 0
        file.write_value(key, float(number), 0.0)  # type: ignore[no-untyped-call]
        assert holes(path) <= 0
    file.close()  # type: ignore[no-untyped-call]
    assert path.stat().st_size == 4 * SIZE
    again = opened(path)
    assert again.read_value("key 7 xxxxxxx")[0] == 7  # type: ignore[no-untyped-call]
    again.close()  # type: ignore[no-untyped-call]
    assert [each.name for each in tmp_path.iterdir()] == ["counter_0.db"]


def test_holes_that_another_version_left_are_filled(tmp_path: Path) -> None:
    path = tmp_path / "counter_0.db"
    MmapedDict(str(path)).close()  # type: ignore[no-untyped-call]
    assert holes(path) > 0
    opened(path).close()  # type: ignore[no-untyped-call]
    assert holes(path) <= 0


def test_without_room_there_is_an_error_and_no_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", no_room)
        for make in (opened, make_empty):
            with pytest.raises(OSError, match="No space"):
                make(tmp_path / "counter_0.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"\x40\0\0\0\0\0\0\0\xff\xff\0\0", b"\x40\0\0\0\0\0\0\0\x04\0\0\0\xff\xff\xff\xff"]
)
def test_a_file_that_cannot_be_read_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "counter_0.db"
    path.write_bytes(content)
    file = opened(path)
    file.write_value("key", 1.0, 0.0)  # type: ignore[no-untyped-call]
    file.close()  # type: ignore[no-untyped-call]
    assert [(key, value) for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))] == [("key", 1.0)]  # type: ignore[no-untyped-call]
    assert f"{path} was written by another version" in caplog.text
