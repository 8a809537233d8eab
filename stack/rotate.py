"""Keep the logs of a native stack from growing without end. Standard library only.

A log that is too large is copied and then cut to nothing. Its writers keep their files (all of them append), so that it
needs neither signals nor another user's rights; nothing is lost but what is written between the last read and the cut.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

KEPT = 3
"""Older logs: NAME.1 is the newest."""
LOOK_EVERY = 2.0
_OWN = ("supervisord.log",)
"""Kept small by their writer; so is what programs print (NAME.out)."""


def main() -> None:
    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    while True:
        for path in sorted(folder.glob("*.log")):
            if path.name not in _OWN:
                try:
                    if path.stat().st_size > limit:
                        rotate(path)
                except OSError as error:
                    print(f"{path} is not rotated: {error}", flush=True)
        time.sleep(LOOK_EVERY)


def rotate(path: Path, kept: int = KEPT) -> None:
    """Move what the log holds to `path`.1, and what that held to .2 and so on; the oldest goes.

    Where there's no room for a copy, it goes, too: a full disk would stop the database. Raises `OSError`.
    """
    numbered = [path.with_name(f"{path.name}.{number}") for number in range(1, kept + 1)]
    numbered[-1].unlink(missing_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    with path.open("r+b") as log:
        try:
            with draft.open("wb") as copy:
                shutil.copyfileobj(log, copy, 1 << 20)
                draft.chmod(path.stat().st_mode & 0o777)
        except OSError as error:
            print(f"{path} is cut without a copy: {error}", flush=True)
            draft.unlink(missing_ok=True)
            log.truncate(0)
            return
        for older, newer in zip(reversed(numbered[1:]), reversed(numbered[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        draft.replace(numbered[0])
        with numbered[0].open("ab") as copy:  # what was written meanwhile
            shutil.copyfileobj(log, copy)
            copy.flush()
            shutil.copyfileobj(log, copy)
            log.truncate(0)


if __name__ == "__main__":
    main()
