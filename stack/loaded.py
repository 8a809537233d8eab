"""What the programs that run have read of their configuration, so that a reload that was missed once is made up for.

An interrupted `up.sh` leaves new files behind which nobody has read; comparing files with files would never tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from stack.files import replace
from stack.processes import since_boot, started


def digest(paths: Iterable[Path]) -> str:
    """Of the names and the content of these files; those that don't exist are left out."""
    found = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            found.update(f"{path}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True)
class _Configuration:
    digest: str
    since: float
    """When it was there as a whole, in seconds since the machine was booted."""
    reader: int | None = None
    """The process that has read it since at a reload."""


class Loaded:
    """Kept in a folder, a file for each program."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def configured(self, name: str, digest: str) -> None:
        """This is what the program is to read; it's there as a whole."""
        known = self._read(name)
        if known is None or known.digest != digest:
            self._write(name, _Configuration(digest, since_boot()))

    def has(self, name: str, pid: int) -> bool:
        """Whether this process has surely read what was configured: at its start, or at a reload."""
        known = self._read(name)
        return known is not None and (known.reader == pid or (started(pid) or 0) > known.since)

    def note(self, name: str, pid: int) -> None:
        """A reload of this process is through."""
        known = self._read(name)
        if known is not None:
            self._write(name, _Configuration(known.digest, known.since, pid))

    def _read(self, name: str) -> _Configuration | None:
        try:
            return _Configuration(**json.loads(self._file(name).read_text()))
        except (FileNotFoundError, TypeError, ValueError):  # nothing is known: it's read again
            return None

    def _write(self, name: str, configuration: _Configuration) -> None:
        replace(self._file(name), json.dumps(asdict(configuration)))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.loaded.json"
