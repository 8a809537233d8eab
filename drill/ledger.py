"""What callers were told: every acknowledged write, held against each later read and against the database."""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

FIELDS = ("email", "name", "age", "city", "tags")
"""What callers give a user."""
Content = dict[str, Any]


@dataclass(frozen=True)
class Promise:
    """What a read must see at least: as it was acknowledged, and as others have seen it before."""

    version: int = 0
    deleted: bool = False
    seen: int = 0
    """A version that nobody has acknowledged yet may be higher."""
    gone: bool = False


NOTHING = Promise()


@dataclass
class Entry:
    """A user as its caller last heard of it."""

    id: str
    contents: dict[int, Content]
    """By version: each that it has had, and the one of a change of which nothing is known yet."""
    version: int = 1
    """That was acknowledged."""
    busy: bool = False
    """A write of it is under way: one at a time, or nobody could say what it should be."""
    doubtful: bool = False
    """A change got no answer that says whether it happened."""
    deleting: bool = False
    deleted: bool = False
    created_at: datetime | None = None
    """As the first answer that said so has it."""
    promises: list[tuple[int, Promise]] = field(default_factory=list)
    """By the moment from which on each holds."""

    @property
    def email(self) -> str:
        return str(self.contents[1]["email"])

    @property
    def most(self) -> int:
        """The highest version that it can have, with a change of which nothing is known yet."""
        return max(self.contents)

    @property
    def now(self) -> Promise:
        return self.promises[-1][1]

    def promise(self, since: int) -> Promise:
        """What a read that began at this moment must see."""
        return next((promise for moment, promise in reversed(self.promises) if moment <= since), NOTHING)

    def surely(self, since: int) -> bool:
        """Whether it was there from that moment until now, whatever has happened meanwhile."""
        return self.promises[0][0] <= since and not (self.deleting or self.deleted)


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
    taken_back: list[str] = field(default_factory=list)
    """Writes that nobody acknowledged, and that were seen and then not any more. That is wrong unless another primary
    was elected: the last one shows what only itself has."""
    moment: int = 0
    """Rises with each promise: a read began after all that had been promised at its moment."""
    _ids: list[str] = field(default_factory=list)
    _order: list[tuple[datetime, str]] = field(default_factory=list)
    """Those whose time of creation is known, but for the deleted, as lists have them."""
    _open: dict[str, Content] = field(default_factory=dict)
    _unanswered: dict[str, Content] = field(default_factory=dict)
    _acknowledged: set[str] = field(default_factory=set)
    _refused: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    """Addresses of `_open` and `_unanswered` that a list had."""

    # Creates

    def asked(self, new: Mapping[str, Any]) -> None:
        """A create is about to be sent, or sent again."""
        if new["email"] not in self._acknowledged:
            self._open[new["email"]] = _content(new)

    def created(self, new: Mapping[str, Any], answer: Mapping[str, Any], *, whole: bool = True) -> None:
        """A create was acknowledged with this user; without `whole`, with its id alone."""
        email, key = new["email"], answer.get("id")
        if not isinstance(key, str):
            self.wrong.append(f"created {email}, the answer has no id")
            self.unanswered(new)
            return
        self.acknowledged += 1
        self._acknowledged.add(email)
        self._open.pop(email, None)
        self._unanswered.pop(email, None)  # it was, and has been repeated since
        content = _content(new)
        if key in self.entries:
            self.wrong.append(f"created {email}, its id is that of {self.entries[key].email}")
            return
        entry = self.entries[key] = Entry(key, {1: content})
        self._promise(entry, Promise(1, seen=1))
        self._ids.append(key)
        if whole:
            if answer.get("version") != 1:
                self.wrong.append(f"created {email}, the answer has version {answer.get('version')}")
            if others := _difference(content, answer):
                self.wrong.append(f"created {email}, the answer has {others}")
            self._date(entry, answer)

    def unanswered(self, new: Mapping[str, Any]) -> None:
        """Nobody knows whether this one was created; of a repeat, it's known already."""
        self._open.pop(new["email"], None)
        if new["email"] not in self._acknowledged:
            self._unanswered[new["email"]] = _content(new)

    def refused(self, email: str, why: str) -> None:
        """This create was refused as a mistake of its caller's, which none is: nobody else has this address."""
        self._open.pop(email, None)
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

    def read(self, entry: Entry, since: int, answer: Mapping[str, Any] | None) -> None:
        """A read that began at this moment was answered: with a user, or that there is none."""
        if answer is None:
            if not (entry.deleting or entry.deleted):
                self.wrong.append(f"{entry.id} was created, and is said not to be there")
            elif not entry.now.gone:
                self._promise(entry, replace(entry.now, gone=True))
            return
        promise, version = entry.promise(since), answer.get("version")
        if answer.get("id") != entry.id:
            self.wrong.append(f"asked for {entry.id}, the answer is {answer.get('id')}")
        elif promise.deleted:
            self.wrong.append(f"{entry.id} was deleted, and is there")
        elif not isinstance(version, int) or version < promise.version:
            self.wrong.append(f"{entry.id} was at version {promise.version}, the answer has {version}")
        elif version > entry.most:
            self.wrong.append(f"{entry.id} is at version {entry.most} at most, the answer has {version}")
        elif others := _difference(entry.contents.get(version, {}), answer):
            self.wrong.append(f"version {version} of {entry.id}, the answer has {others}")
        else:
            self._date(entry, answer)
            if promise.gone or version < promise.seen:
                was = "gone" if promise.gone else f"at version {promise.seen}"
                self.taken_back.append(f"{entry.id} was seen {was}, and then at version {version}")
            if version > entry.now.seen:
                self._promise(entry, replace(entry.now, seen=version))

    def listed(self, since: int, page: Mapping[str, Any], *, limit: int, newest_first: bool) -> None:
        """A list of all, by creation, that began at this moment was answered."""
        items, goes_on = page.get("items"), page.get("next_cursor") is not None
        if not isinstance(items, list):
            self.wrong.append("asked for a list, the answer has no items")
            return
        try:
            places = [(_time(item), str(item["id"])) for item in items]
        except (LookupError, TypeError, ValueError):
            self.wrong.append("asked for a list, the answer has items without an id or the time of their creation")
            return
        for item in items:
            if entry := self.entries.get(item["id"]):
                self.read(entry, since, item)
            else:
                self._stranger(item)
        if places != sorted(set(places), reverse=newest_first):
            self.wrong.append(f"a list has another order, or somebody twice: {', '.join(key for _, key in places)}")
        if len(items) > limit or (goes_on and len(items) < limit):
            self.wrong.append(f"a list of {limit} has {len(items)}{', and goes on' if goes_on else ''}")
            return
        there = {key for _, key in places}
        for place in reversed(self._order) if newest_first else self._order:
            if goes_on and (place < places[-1] if newest_first else place > places[-1]):
                break
            if place[1] not in there and self.entries[place[1]].surely(since):
                self.wrong.append(f"{place[1]} was created, and a list lacks it")

    def _stranger(self, item: Mapping[str, Any]) -> None:
        """A list has one whose creation was not acknowledged."""
        email = str(item.get("email"))
        content = self._open.get(email) or self._unanswered.get(email)
        if content is None:
            why = "which was refused" if email in self._refused else "which nobody was told of"
            self.wrong.append(f"a list has {email}, {why}")
        elif (others := _difference(content, item)) or item.get("version") != 1:
            self.wrong.append(f"a list has {email}, at version {item.get('version')} {others}")
        else:
            self._seen.add(email)

    # Changes

    def take(self) -> Entry | None:
        """One to change, which nobody else changes until it's given back."""
        entry = self.one()
        if entry is None or entry.busy or entry.doubtful:
            return None
        entry.busy = True
        return entry

    def changing(self, entry: Entry, change: Mapping[str, Any]) -> None:
        """This change of one that was taken is about to be sent."""
        entry.contents[entry.version + 1] = {**entry.contents[entry.version], **change}

    def changed(self, entry: Entry, answer: Mapping[str, Any] | None) -> None:
        """A change was acknowledged with this user, or (None) nobody knows whether it happened."""
        entry.busy = False
        if answer is None:
            entry.doubtful = True
            return
        if answer.get("id") != entry.id:
            self.wrong.append(f"changed {entry.id}, the answer is {answer.get('id')}")
        if answer.get("version") != entry.version + 1:
            self.wrong.append(f"{entry.id} was at version {entry.version}, its change has {answer.get('version')}")
        if others := _difference(entry.contents[entry.version + 1], answer):
            self.wrong.append(f"changed {entry.id}, the answer has {others}")
        self.acknowledged += 1
        entry.version += 1
        self._promise(entry, replace(entry.now, version=entry.version, seen=entry.version))

    def unchanged(self, entry: Entry, what: str, status: int) -> None:
        """This change or deletion was refused as a mistake of its caller's, which none is."""
        self.wrong.append(f"{entry.id} was at version {entry.version}, its {what} was answered {status}")
        entry.contents.pop(entry.version + 1, None)
        entry.busy = entry.deleting = False

    def removed(self, entry: Entry, *, known: bool) -> None:
        """A deletion was acknowledged; without `known`, nobody can say whether it happened."""
        entry.busy = False
        if not known:
            entry.doubtful = True
            return
        entry.deleted = True
        self.acknowledged += 1
        self._promise(entry, replace(entry.now, deleted=True))
        if entry.created_at is not None:
            del self._order[bisect.bisect_left(self._order, (entry.created_at, entry.id))]

    # The end

    def audit(self, documents: list[dict[str, Any]]) -> Audit:
        """Hold the collection's documents against all that was acknowledged, or seen.

        Each create of a load has a name of its own, which tells one that happened twice.
        """
        there = {str(document["_id"]): document for document in documents}
        emails = {document["email"] for document in documents}
        silent = self._unanswered | self._open
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
            elif others := _difference(entry.contents[found["version"]], found):
                lost.append(f"version {found['version']} of {entry.id}, which has {others}")
            elif entry.now.gone or found["version"] < entry.now.seen:
                was = "gone" if entry.now.gone else f"at version {entry.now.seen}"
                self.taken_back.append(f"{entry.id} was seen {was}, and is at version {found['version']} in the end")
        for document in documents:
            if document["email"] in self._refused:
                invented.append(f"{document['email']}, which was refused")
            elif str(document["_id"]) in self.entries:
                continue
            elif document["email"] not in silent:
                invented.append(f"{document['email']}, which nobody was told of")
            elif (others := _difference(silent[document["email"]], document)) or document["version"] != 1:
                invented.append(f"{document['email']}, at version {document['version']} {others}")
        self.taken_back += [
            f"{email} was seen, and isn't there" for email in sorted(self._seen & silent.keys() - emails)
        ]
        names = Counter(document["name"] for document in documents)
        happened = sum(document["email"] in silent for document in documents)
        happened += sum(
            entry.doubtful and (entry.id not in there or there[entry.id]["version"] > entry.version)
            for entry in self.entries.values()
        )
        twice = [name for name, count in names.items() if count > 1]
        return Audit(self.acknowledged, lost, twice, happened, invented)

    def _promise(self, entry: Entry, promise: Promise) -> None:
        self.moment += 1
        entry.promises.append((self.moment, promise))

    def _date(self, entry: Entry, answer: Mapping[str, Any]) -> None:
        """An answer says when this one was created, which never changes."""
        try:
            time = _time(answer)
        except (LookupError, TypeError, ValueError):
            self.wrong.append(f"{entry.id} was created at {answer.get('created_at')}")
            return
        if entry.created_at is None:
            entry.created_at = time
            if not entry.deleted:
                bisect.insort(self._order, (time, entry.id))
        elif time != entry.created_at:
            self.wrong.append(f"{entry.id} was created at {entry.created_at}, the answer has {time}")


def _content(user: Mapping[str, Any], fields: Iterable[str] = FIELDS) -> Content:
    return {name: user.get(name) for name in fields}


def _difference(expected: Content, user: Mapping[str, Any]) -> str:
    """What it has instead of what was expected; empty where that's nothing."""
    other = _content(user)
    return ", ".join(f"{name} {other[name]!r}" for name in FIELDS if other[name] != expected.get(name))


def _time(user: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(user["created_at"])
