"""What workers learn of each other, over forks as Gunicorn makes them."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from app.serving.succession import PLACES, Board


def in_a_child(what: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            what()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_a_worker_starts_from_before_its_fork_until_it_says_that_it_serves() -> None:
    board = Board()
    first, second = board.take(), board.take()
    assert first.others_start()
    in_a_child(second.serves)
    assert not first.others_start()
    assert second.others_start()


def test_workers_leave_in_turn() -> None:
    board = Board()
    first, second = board.take(), board.take()
    first.serves()
    assert not first.takes_its_turn()  # the second starts
    in_a_child(second.serves)
    in_a_child(first.takes_its_turn)
    assert not second.takes_its_turn()
    first.free()
    third = board.take()
    assert not second.takes_its_turn()  # the first's successor starts
    third.serves()
    assert second.takes_its_turn()


def test_places_are_given_back() -> None:
    board = Board()
    for _ in range(3):
        places = [board.take() for _ in range(PLACES)]
        with pytest.raises(ValueError, match="not found"):
            board.take()
        for place in places:
            place.free()
