"""What callers were told: every acknowledged write, held against each later read and against the database."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    """A user as its caller last heard of it."""

    id: str
    email: str
    version: int
    busy: bool = False
    """A write of it is under way: one at a time, or nobody could say what it should be."""
    doubtful: bool = False
    """A change got no answer that says whether it happened."""
    deleting: bool = False
    deleted: bool = False


@dataclass(frozen=True)
class Promise:
    """What a read that begins now must see at least."""

    version: int
    deleted: bool


@dataclass
class Audit:
    """What the database says in the end of all that was acknowledged."""

    acknowledged: int
    lost: list[str]
    duplicates: list[str]
    unacknowledged: int
    """Writes without an acknowledgement that happened all the same."""


@dataclass
class Ledger:
    """Of one load. `wrong`: a line for each answer that contradicts what was acknowledged before it was asked for."""

    entries: dict[str, Entry] = field(default_factory=dict)
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _unanswered: set[str] = field(default_factory=set)

    # Creates

    def created(self, email: str, answer: Mapping[str, Any]) -> None:
        """A create was acknowledged with this user, or with this id alone."""
        self.acknowledged += 1
        if answer.get("email", email) != email:
            self.wrong.append(f"created {email}, the answer has {answer['email']}")
        key = str(answer["id"])
        if key in self.entries:
            self.wrong.append(f"created {email}, its id is that of {self.entries[key].email}")
        self.entries[key] = Entry(key, email, int(answer.get("version", 1)))
        self._ids.append(key)

    def unanswered(self, email: str) -> None:
        """Nobody knows whether this one was created."""
        self._unanswered.add(email)

    # Reads

    def one(self) -> Entry | None:
        """One that is there, for all that is known; None while there is none."""
        for _ in range(20):
            if not self._ids:
                return None
            entry = self.entries[random.choice(self._ids)]
            if not (entry.deleted or entry.deleting):
                return entry
        return None

    def promise(self, entry: Entry) -> Promise:
        return Promise(entry.version, entry.deleted)

    def read(self, entry: Entry, promise: Promise, answer: Mapping[str, Any] | None) -> None:
        """A read that began with this promise was answered: with a user, or that there is none."""
        if answer is None:
            if not (entry.deleting or entry.deleted):
                self.wrong.append(f"{entry.id} was created, and is said not to be there")
            return
        if answer["id"] != entry.id:
            self.wrong.append(f"asked for {entry.id}, the answer is {answer['id']}")
        elif promise.deleted:
            self.wrong.append(f"{entry.id} was deleted, and is there")
        elif answer["version"] < promise.version:
            self.wrong.append(f"{entry.id} was at version {promise.version}, the answer has {answer['version']}")

    # Changes

    def take(self) -> Entry | None:
        """One to change, which nobody else changes until it's given back."""
        entry = self.one()
        if entry is None or entry.busy or entry.doubtful:
            return None
        entry.busy = True
        return entry

    def changed(self, entry: Entry, version: int | None) -> None:
        """A change was acknowledged with this version, was refused, or (None) nobody knows."""
        entry.busy = False
        if version is None:
            entry.doubtful = True
        elif version < entry.version:
            self.wrong.append(f"{entry.id} was at version {entry.version}, its change has {version}")
        elif version > entry.version:
            self.acknowledged += 1
            entry.version = version

    def removed(self, entry: Entry, done: bool | None) -> None:
        """A deletion was acknowledged, was refused, or (None) nobody knows."""
        entry.busy = False
        if done is None:
            entry.doubtful = True
            return
        entry.deleting = entry.deleted = done
        self.acknowledged += done

    # The end

    def audit(self, documents: list[dict[str, Any]]) -> Audit:
        """Hold the collection's documents (`_id`, `email`, `name`, `version`) against all that was acknowledged.

        Each create of a load has a name of its own, which tells one that happened twice.
        """
        there = {str(document["_id"]): document for document in documents}
        lost = []
        for entry in self.entries.values():
            found = there.get(entry.id)
            if entry.deleted:
                if found is not None:
                    lost.append(f"the deletion of {entry.id}")
            elif found is None:
                if not entry.deleting:
                    lost.append(f"the creation of {entry.id}")
            elif found["version"] < entry.version:
                lost.append(f"version {entry.version} of {entry.id}")
        names = Counter(document["name"] for document in documents)
        silent = sum(document["email"] in self._unanswered for document in documents)
        silent += sum(
            entry.doubtful and (entry.id not in there or there[entry.id]["version"] > entry.version)
            for entry in self.entries.values()
        )
        return Audit(self.acknowledged, lost, [name for name, count in names.items() if count > 1], silent)
