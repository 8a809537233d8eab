"""Where log records go: a file or standard output that several workers share without tearing a line."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
from contextlib import suppress
from pathlib import Path


class FileSink:
    """Appends to a file; each record is one `write`, which the kernel keeps whole on `O_APPEND`.

    A file that was moved away or deleted (log rotation) is reopened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def write(self, record: bytes) -> None:
        try:
            now = os.stat(self._path)
            moved = (now.st_dev, now.st_ino) != self._identity
        except FileNotFoundError:
            moved = True
        if moved:
            before = self._file
            self._open()  # first: if it fails, the old descriptor stays ours and isn't closed twice
            os.close(before)
        _write_all(self._file, record)

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        status = os.fstat(self._file)
        self._identity = (status.st_dev, status.st_ino)


class StreamSink:
    """Writes to an open descriptor, such as standard output.

    A pipe keeps only 4 KiB whole (`PIPE_BUF`), and a traceback is longer: writers take turns by a lock on a file.
    It's a POSIX lock, since that belongs to the process and not, as `flock`, to everyone who inherited the file.
    """

    def __init__(self, descriptor: int, lock: Path) -> None:
        self._descriptor = descriptor
        self._lock = -1
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) or stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with suppress(OSError):  # a full or read-only folder: a torn traceback is better than no service
                lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, record: bytes) -> None:
        if self._lock < 0:
            _write_all(self._descriptor, record)
            return
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            _write_all(self._descriptor, record)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, also to a descriptor that somebody made non-blocking; a reader that is gone gets nothing."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO):  # nobody reads, or nothing fits any more
                return
            raise
