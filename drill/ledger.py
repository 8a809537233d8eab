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

    @property
    def most(self) -> int:
        """The highest version that it can have, with a change of which nothing is known yet."""
        return self.version + ((self.busy or self.doubtful) and not self.deleting)


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
    """Writes without an answer that happened all the same."""
    invented: list[str] = field(default_factory=list)
    """What is there, and that nobody asked for, or was told not to have happened."""


@dataclass
class Ledger:
    """Of one load. `wrong`: a line for each answer that contradicts what was acknowledged before it was asked for."""

    entries: dict[str, Entry] = field(default_factory=dict)
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)
    _ids: list[str] = field(default_factory=list)
    _unanswered: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)

    # Creates

    def created(self, email: str, answer: Mapping[str, Any]) -> None:
        """A create was acknowledged with this user, or with this id alone."""
        self.acknowledged += 1
        self._unanswered.discard(email)  # it was, and has been repeated since
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

    def refused(self, email: str, why: str) -> None:
        """This create was refused as a mistake of its caller's, which none is: nobody else has this address."""
        self.wrong.append(f"created {email}, which nobody had, the answer is {why}")
        self._refused.add(email)

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
        elif answer["email"] != entry.email:
            self.wrong.append(f"{entry.id} is {entry.email}, the answer has {answer['email']}")
        elif answer["version"] < promise.version:
            self.wrong.append(f"{entry.id} was at version {promise.version}, the answer has {answer['version']}")
        elif answer["version"] > entry.most:
            self.wrong.append(f"{entry.id} is at version {entry.most} at most, the answer has {answer['version']}")

    # Changes

    def take(self) -> Entry | None:
        """One to change, which nobody else changes until it's given back."""
        entry = self.one()
        if entry is None or entry.busy or entry.doubtful:
            return None
        entry.busy = True
        return entry

    def changed(self, entry: Entry, version: int | None) -> None:
        """A change was acknowledged with this version, or (None) nobody knows whether it happened."""
        entry.busy = False
        if version is None:
            entry.doubtful = True
            return
        if version != entry.version + 1:
            self.wrong.append(f"{entry.id} was at version {entry.version}, its change has {version}")
        self.acknowledged += 1
        entry.version = version

    def unchanged(self, entry: Entry, what: str, status: int) -> None:
        """This change or deletion was refused as a mistake of its caller's, which none is."""
        self.wrong.append(f"{entry.id} was at version {entry.version}, its {what} was answered {status}")
        entry.busy = entry.deleting = False

    def removed(self, entry: Entry, *, known: bool) -> None:
        """A deletion was acknowledged; without `known`, nobody can say whether it happened."""
        entry.busy = False
        if not known:
            entry.doubtful = True
            return
        entry.deleted = True
        self.acknowledged += 1

    # The end

    def audit(self, documents: list[dict[str, Any]]) -> Audit:
        """Hold the collection's documents (`_id`, `email`, `name`, `version`) against all that was acknowledged.

        Each create of a load has a name of its own, which tells one that happened twice.
        """
        there = {str(document["_id"]): document for document in documents}
        lost, invented = [], []
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
            elif found["version"] > entry.most:
                invented.append(f"version {found['version']} of {entry.id}, which is at {entry.most} at most")
        for document in documents:
            if document["email"] in self._refused:
                invented.append(f"{document['email']}, which was refused")
            elif str(document["_id"]) not in self.entries and document["email"] not in self._unanswered:
                invented.append(f"{document['email']}, which nobody was told of")
        names = Counter(document["name"] for document in documents)
        silent = sum(document["email"] in self._unanswered for document in documents)
        silent += sum(
            entry.doubtful and (entry.id not in there or there[entry.id]["version"] > entry.version)
            for entry in self.entries.values()
        )
        twice = [name for name, count in names.items() if count > 1]
        return Audit(self.acknowledged, lost, twice, silent, invented)
