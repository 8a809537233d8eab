"""Files that others read while they are written. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, text: str, mode: int | None = None) -> None:
    """Give the file this text in one step: whoever reads it finds the old one or the new one, whole, whatever happens.

    `mode`: its permissions, from the beginning; else what the caller's umask leaves. Raises `OSError`.
    """
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode or 0o666), "w") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
