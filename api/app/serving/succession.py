"""Which workers of a master start, and which leave: known to all of them, by memory that they share.

A master starts the next worker and ends the last without waiting in between. Whoever leaves looks here whether others
have still to begin, and serves until they have; whoever leaves by its own choice waits for its turn.
"""

from __future__ import annotations

import mmap

PLACES = 4_096
"""Workers of one master at once, those that leave included."""
FREE, STARTS, SERVES, LEAVES = range(4)


class Board:
    """Made before any fork."""

    def __init__(self) -> None:
        self._states = mmap.mmap(-1, PLACES)

    def take(self) -> Place:
        """In the master, for a worker that it's about to start; `Place.free` gives it back. Raises `ValueError` when
        all are taken."""
        number = self._states[:].index(FREE)
        self._states[number] = STARTS
        return Place(self._states, number)


class Place:
    """What one worker tells the others, and learns of them."""

    def __init__(self, states: mmap.mmap, number: int) -> None:
        self._states = states
        self._number = number

    def serves(self) -> None:
        self._states[self._number] = SERVES

    def leaves(self) -> None:
        self._states[self._number] = LEAVES

    def free(self) -> None:
        self._states[self._number] = FREE

    def others_serve(self) -> bool:
        return self._others(SERVES)

    def others_start(self) -> bool:
        """Whether some of the others don't serve yet."""
        return self._others(STARTS)

    def takes_its_turn(self) -> bool:
        """Whether this worker may leave as nobody else starts or leaves; if so, it's known that it does."""
        if self._others(STARTS) or self._others(LEAVES):
            return False
        self.leaves()
        if self._others(LEAVES):  # both have looked at the same time
            self.serves()
            return False
        return True

    def _others(self, state: int) -> bool:
        states = self._states[:]
        return bytes([state]) in (states[: self._number] + states[self._number + 1 :])
