"""Whether an expression of `re` or PCRE may take more than linear time: by its structure, not by a clock.

A matcher that backtracks tries every way in which an expression reads a text before it gives up. There are more than
linearly many where two of its loops, or one loop in two ways, read the same text (Weber and Seidl, "On the degree of
ambiguity of finite automata", 1991): states p and q, for which some word leads from p to p, from p to q, and from q to
q. A search adds a loop before the expression, since it begins anew at each letter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from re import _constants as op  # what an expression consists of is told nowhere else
from re import _parser as parser
from typing import Any, Literal

How = Literal["fullmatch", "match", "search"]
Reads = Callable[[str], bool]

ONE_LETTER = (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY)
UNROLLED = 4
"""Times up to which a repetition is taken as written; beyond, as one without an end."""
PEOPLE = "aZ09_ \t\r\n\x00\x1c\x7f\x85\xa0\xffé٣語\u2028"
CATEGORIES: dict[Any, str] = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}


@dataclass
class Automaton:
    """Nodes that read a letter or none, and where each leads to; the first is the start, the second the end."""

    reads: list[Reads | None] = field(default_factory=lambda: [None, None])
    next: list[list[int]] = field(default_factory=lambda: [[], []])
    letters: set[str] = field(default_factory=lambda: set(PEOPLE))
    doubts: set[int] = field(default_factory=set)
    """Nodes that stand for what may not hold: nobody is at the end who came by one."""
    looks_far: bool = False
    """Whether there is a loop in some look-around."""

    def node(self, reads: Reads | None = None) -> int:
        self.reads.append(reads)
        self.next.append([])
        return len(self.reads) - 1

    def add(self, tree: Iterable[tuple[Any, Any]], start: int, flags: int) -> int:
        """What `tree` reads, behind `start`; where that ends."""
        for kind, value in tree:
            start = self._add_one(kind, value, start, flags)
        return start

    def _add_one(self, kind: Any, value: Any, start: int, flags: int) -> int:
        match kind:
            case _ if kind in ONE_LETTER:
                node = self.node(self._reader(kind, value, flags))
                self.next[start].append(node)
                return node
            case op.SUBPATTERN:
                return self.add(value[3], start, (flags | value[1]) & ~value[2])
            case op.ATOMIC_GROUP:
                return self.add(value, start, flags)
            case op.BRANCH:
                end = self.node()
                for branch in value[1]:
                    self.next[self.add(branch, start, flags)].append(end)
                return end
            case op.MAX_REPEAT | op.MIN_REPEAT | op.POSSESSIVE_REPEAT:
                return self._repeat(value, start, flags)
            case op.AT:
                return self._doubt(start)
            case op.ASSERT if value[0] < 0:  # as if it were read: what it needs can't be another's beginning
                return self.add(value[1], start, flags)
            case op.ASSERT_NOT if value[0] < 0 and len(value[1]) == 1 and value[1][0][0] in ONE_LETTER:
                other, letters = value[1][0]
                return self._behind_another(self._reader(other, letters, flags), start)
            case op.ASSERT | op.ASSERT_NOT:
                self.looks_far = self.looks_far or _has_loop(value[1])
                return self._doubt(start)
        raise NotImplementedError(f"{kind}: an expression with this can't be judged")

    def _doubt(self, start: int) -> int:
        node = self.node()
        self.next[start].append(node)
        self.doubts.add(node)
        return node

    def _behind_another(self, reads: Reads, start: int) -> int:
        """Where a letter that isn't read by this has come before, or none has."""
        end, other = self.node(), self.node(lambda letter: not reads(letter))
        self.next[start].append(other)
        self.next[other].append(end)
        self.next[0].append(end)
        return end

    def _repeat(self, value: tuple[int, int, Any], start: int, flags: int) -> int:
        least, most, tree = value
        for _ in range(min(least, UNROLLED)):
            start = self.add(tree, start, flags)
        end = self.node()
        if most > UNROLLED:
            loop = self.node()
            self.next[start].append(loop)
            self.next[self.add(tree, loop, flags)].append(loop)
            start = loop
        else:
            for _ in range(most - least):
                self.next[start].append(end)
                start = self.add(tree, start, flags)
        self.next[start].append(end)
        return end

    def _reader(self, kind: Any, value: Any, flags: int) -> Reads:
        if kind is op.ANY:
            return lambda letter: letter != "\n" or bool(flags & re.DOTALL)
        if kind in (op.LITERAL, op.NOT_LITERAL):
            value = [(op.LITERAL, value)] if kind is op.LITERAL else [(op.NEGATE, None), (op.LITERAL, value)]
        for each, found in value:
            if each in (op.LITERAL, op.RANGE):
                ends = (found, found) if each is op.LITERAL else found
                self.letters |= {chr(code) for end in ends for code in (end - 1, end, end + 1) if 0 <= code < 0x110000}
        return lambda letter: _is_in(value, letter, flags)


def _has_loop(tree: Any) -> bool:
    if isinstance(tree, tuple | list | parser.SubPattern):
        repeats = isinstance(tree, tuple) and len(tree) == 3 and tree[1] is op.MAXREPEAT
        return repeats or any(map(_has_loop, tree))
    return False


def _is_in(items: list[tuple[Any, Any]], letter: str, flags: int) -> bool:
    cases = {letter, letter.lower(), letter.upper()} if flags & re.IGNORECASE else {letter}
    codes = {ord(case) for case in cases if len(case) == 1}
    found = negated = False
    for kind, value in items:
        match kind:
            case op.NEGATE:
                negated = True
            case op.LITERAL:
                found |= value in codes
            case op.RANGE:
                found |= any(value[0] <= code <= value[1] for code in codes)
            case op.CATEGORY:
                found |= re.match(CATEGORIES[value], letter, flags & re.ASCII) is not None
    return found is not negated


def ambiguity(pattern: str | bytes, how: How, flags: int = 0) -> str | None:
    """Why the expression may take more than linear time; None if it can't.

    What an expression looks for beside it counts as if it may hold anywhere, and may not. Raises `NotImplementedError`
    for a reference to a group.
    """
    tree = parser.parse(pattern, flags)
    flags = tree.state.flags
    if isinstance(pattern, bytes):
        flags |= re.ASCII
    automaton = Automaton()
    anchored = bool(tree) and tree[0] in ((op.AT, op.AT_BEGINNING), (op.AT, op.AT_BEGINNING_STRING))
    start = 0
    if how == "search" and not anchored:
        start = automaton.node()
        before = automaton.node(lambda letter: True)
        automaton.next[0].append(start)
        automaton.next[start].append(before)
        automaton.next[before].append(start)
    end = automaton.add(tree, start, flags)
    if automaton.looks_far:
        return "what is looked at beside it has a loop"
    automaton.next[end].append(1)
    return _judge(automaton, eager=how != "fullmatch")


def _judge(automaton: Automaton, *, eager: bool) -> str | None:
    """`eager`: it has found what it looks for as soon as it's at its end."""
    ways = {node: Counter(_following(automaton, node)) for node, reads in enumerate(automaton.reads) if reads}
    readers = {node: {letter for letter in automaton.letters if automaton.reads[node](letter)} for node in ways}  # type: ignore[misc]
    ends = {node for node in ways if eager and _is_at_end(automaton, node)}
    steps = {
        node: {other: count for other, count in following.items() if other != 1 and readers[other]}
        for node, following in ways.items()
    }
    reached = {node: _reachable(steps, node) for node in steps}
    loops = [node for node in steps if node in reached[node] and node not in ends]
    for first in loops:
        twice = [other for other, count in steps[first].items() if count > 1 and first in reached[other] | {other}]
        if twice and twice[0] not in ends:
            return "one loop reads the same in two ways"
    for first in loops:
        for second in loops:
            if second in reached[first] and _read_the_same(steps, readers, first, second):
                return (
                    f"two loops read the same, such as {_example(readers[first] & readers[second] or readers[second])}"
                )
    return None


def _following(automaton: Automaton, node: int, way: tuple[int, ...] = ()) -> Iterator[int]:
    """The nodes that read the next letter, or the end; each as often as there are ways to it (or twice)."""
    for each in automaton.next[node]:
        if each == 1 or automaton.reads[each]:
            yield each
        elif way.count(each) < 2:
            yield from _following(automaton, each, (*way, each))


def _is_at_end(automaton: Automaton, node: int) -> bool:
    """Whether the end is behind the node, with nothing between them that is read or may not hold."""
    seen, waiting = {node}, [node]
    while waiting:
        for each in automaton.next[waiting.pop()]:
            if each == 1:
                return True
            if each not in seen | automaton.doubts and not automaton.reads[each]:
                seen.add(each)
                waiting.append(each)
    return False


def _reachable(steps: dict[int, dict[int, int]], node: int) -> set[int]:
    found: set[int] = set()
    waiting = [node]
    while waiting:
        for each in steps[waiting.pop()]:
            if each not in found:
                found.add(each)
                waiting.append(each)
    return found


def _read_the_same(steps: dict[int, dict[int, int]], readers: dict[int, set[str]], first: int, second: int) -> bool:
    """Whether a word leads from first to first, first to second, and second to second; of one and the same node, in
    two different ways."""
    start, goal = (first, first, second), (first, second, second)
    seen = {(start, False)}
    waiting = [(start, False)]
    while waiting:
        at, parted = waiting.pop()
        for a in steps[at[0]]:
            for b in steps[at[1]]:
                both = readers[a] & readers[b]
                if not both:
                    continue
                for c in steps[at[2]] if first != second else (b,):
                    if not both & readers[c]:
                        continue
                    found = ((a, b, c), parted or a != b)
                    if found[0] == goal and (first != second or found[1]):
                        return True
                    if found not in seen:
                        seen.add(found)
                        waiting.append(found)
    return False


def _example(letters: set[str]) -> str:
    return ascii(min(letters, key=lambda letter: (not letter.isprintable(), letter)))
