"""Make what a MongoDB stack keeps secret: the members' key file and one password per user.

Everything is made once, by whoever starts first, and never replaced.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
from pathlib import Path

PASSWORDS = ("admin_password", "app_password", "monitoring_password")
KEY_FILE = "mongo_key"


def make_secrets(folder: Path) -> None:
    """Fill `folder` (mode 0700) with files of mode 0400. Raises `OSError` when it can't be written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _once(folder / KEY_FILE, base64.b64encode(secrets.token_bytes(512)).decode())
    for name in PASSWORDS:
        _once(folder / name, secrets.token_urlsafe(32))


def make_grafana_password(folder: Path) -> None:
    """The password of Grafana's `admin`, readable for all who can see the folder: Grafana runs as a user of its own."""
    _once(folder / "admin_password", secrets.token_urlsafe(16), 0o444)


def give(folder: Path, owner: int) -> None:
    """Let this user and nobody else read what is in `folder`, for programs that run as him. Raises `OSError`."""
    if folder.stat().st_uid == os.geteuid():
        folder.chmod(0o700)
    for path in (*folder.iterdir(), folder):
        os.chown(path, owner, owner)


def _once(path: Path, text: str, mode: int = 0o400) -> None:
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)  # of one that was killed, or found no room: in a container, all have the same number
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
            file.write(text)
        os.link(draft, path)  # fails where another was faster, unlike a rename
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grafana", type=Path, metavar="FOLDER", help="where to put Grafana's password, if anywhere")
    parser.add_argument("--owner", type=int, metavar="UID", help="whose the folder is to be (default: nothing changes)")
    given = parser.parse_args()
    make_secrets(given.folder)
    if given.owner is not None:
        give(given.folder, given.owner)
    if given.grafana:
        make_grafana_password(given.grafana)
