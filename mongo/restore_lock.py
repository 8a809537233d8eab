"""The lock of a restore: a document in the database that is restored, which its holder keeps alive.

Nothing else is needed for it than the right to read and write there. A holder that was killed stops renewing it, and
`EXPIRY` later the next one may take it over: by the server's clock, whichever machine they run on.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.write_concern import WriteConcern

from mongo.backup_format import OURS, BackupError, Document
from mongo.interruptions import ignore_them

LOCK = f"{OURS}lock"
BEAT = 2.0
"""Seconds between two signs of life."""
EXPIRY = 20.0
"""Seconds without one, after which the holder is taken for dead."""
PAUSE = 0.25

_ID = "restore"
_EXPIRED = {"$lt": ["$beat", {"$subtract": ["$$NOW", int(EXPIRY * 1000)]}]}


class RestoreLock:
    """Held within the `with` block. Raises `BackupError` when another restore of this database is alive."""

    def __init__(self, database: Database[Document], say: Callable[[str], None]) -> None:
        self.run = secrets.token_hex(6)
        self.former: Document | None = None
        """The lock of the restore that was killed, from which this one has it."""
        self._database = database
        self._locks = database.get_collection(LOCK, write_concern=WriteConcern("majority"))
        self._say = say
        self._lost = threading.Event()
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="restore-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._acquire()
            self._heart.start()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _acquire(self) -> None:
        first: Document | None = None
        began = time.monotonic()
        said = False
        while not self._take():
            holder = self._locks.find_one({"_id": _ID})
            if holder is None:
                continue
            if first is None:
                first = holder
            elif (holder["owner"], holder["beat"]) != (first["owner"], first["beat"]):
                raise BackupError(f"{described(holder, self._database.name)} is under way; nothing was changed")
            elif not said and time.monotonic() - began > 2 * BEAT:
                said = True
                self._say(f"{described(holder, self._database.name)} gives no sign of life; waiting")
            time.sleep(PAUSE)

    def _release(self) -> None:
        ignore_them()
        self._released.set()
        if self._heart.is_alive():
            self._heart.join()
        # Renewed first, so that nobody else can have a document in the collection that goes. Else it expires.
        with suppress(PyMongoError):
            if self._renew():
                self._database.drop_collection(LOCK)

    def check(self) -> None:
        """Raises `BackupError` when another restore has taken the lock over; asks nobody."""
        if self._lost.is_set():
            raise BackupError("another restore took this one for dead; nothing was changed")

    def begin_swap(self, names: list[str]) -> None:
        """Make sure that the lock is still held, and let who finds it know what may be half done."""
        if not self._renew(swapping=names):
            self._lost.set()
        self.check()

    def _take(self) -> bool:
        values = {
            "owner": self.run,
            "by": f"process {os.getpid()} on {socket.gethostname()}",
            "since": "$$NOW",
            "beat": "$$NOW",
            "swapping": [],
        }
        taken: list[Document] = [{"$set": {name: _literal(value) for name, value in values.items()}}]
        self.former = self._locks.find_one_and_update({"_id": _ID, "$expr": _EXPIRED}, taken)
        if self.former is not None:
            return True
        try:
            self._locks.update_one({"_id": _ID, "owner": self.run}, taken, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def _renew(self, **more: Any) -> bool:
        """Whether the lock was still held, and is now for another `EXPIRY`."""
        changes: list[Document] = [{"$set": {"beat": "$$NOW", **more}}]
        return self._locks.update_one({"_id": _ID, "owner": self.run}, changes).matched_count == 1

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with suppress(PyMongoError):  # no primary for a while: `begin_swap` asks again
                if not self._renew():
                    self._lost.set()
                    return


def living(database: Database[Document]) -> Document | None:
    """The lock of a restore of this database that is under way."""
    return database[LOCK].find_one({"_id": _ID, "$expr": {"$not": [_EXPIRED]}})


def described(lock: Document, name: str) -> str:
    """Whose lock it is, for people."""
    return f"another restore of database {name} ({lock['by']}, since {lock['since']:%Y-%m-%d %H:%M:%S} UTC)"


def _literal(value: Any) -> Any:
    """A value that isn't an expression, as an update's pipeline takes it."""
    return value if value == "$$NOW" else {"$literal": value}
