"""Stop a native stack, whatever of it still runs. Standard library only."""

from __future__ import annotations

import os
import pwd
import shutil

from stack.home import Home, StackError
from stack.output import say
from stack.processes import Process, at_work, end, of_stack, orphans
from stack.supervise import LOST, Supervisor

PATIENCE = 60.0
"""Seconds for a process manager, or another script, to end; up to GRACEFUL_TIMEOUT is for the API's requests."""


def stop(home: Home) -> bool:
    """Stop it; whether anything ran. The process manager's own way first, then whatever it didn't know of.

    Raises `StackError` when something of it doesn't end.
    """
    if not of_stack(home.home):
        return False
    try:
        home.check_shared()
        supervisor = Supervisor(home)
        if supervisor.alive:
            supervisor.stop()
    except (*LOST, StackError) as error:
        say(f"the process manager doesn't stop it: {error}")
    end_leftovers(home)
    shutil.rmtree(home.shared, ignore_errors=True)
    return True


def end_orphans(home: Home) -> int:
    """End what a running process manager has lost; how many that were."""
    found = lost(home)
    if left := end(found, PATIENCE):
        raise StackError(f"still there: {', '.join(map(str, left))}")
    return len(found)


def lost(home: Home) -> list[Process]:
    """What a running process manager knows nothing of, since what had started it was killed."""
    found = of_stack(home.home)
    return [orphan for each in found if str(home.supervisor) in each.command for orphan in orphans(found, each)]


def end_leftovers(home: Home) -> int:
    """End every process of the stack, its manager first and its members last; returns how many there were.

    Raises `StackError` for those that don't end.
    """
    count = 0
    left: list[Process] = []
    for _ in range(3):  # a manager may just have started something
        found = of_stack(home.home)
        if not found:
            break
        count += len(found)
        managers = [each for each in found if str(home.supervisor) in each.command]
        members = [each for each in found if each.name == "mongod"]
        others = [each for each in found if each not in managers and each not in members]
        left = [stubborn for group in (managers, others, members) for stubborn in end(group, PATIENCE)]
    if left or (left := of_stack(home.home)):
        raise StackError(f"still there: {', '.join(map(str, left))}")
    return count


def end_others(home: Home) -> None:
    """End an up.sh that is at work on this stack, or that shows its log."""
    if others := at_work(home.home):
        say(f"stopping up.sh ({', '.join(f'process {other.pid}' for other in others)})")
        if left := end(others, PATIENCE):
            raise StackError(f"still there: {', '.join(map(str, left))}")


def refuse_others(home: Home) -> None:
    """Raises `StackError` for a stack that another user started, unless this one may end it."""
    foreign = sorted((each for each in of_stack(home.home) if each.user != os.geteuid()), key=lambda each: each.pid)
    if foreign and os.geteuid() != 0:
        try:
            whose = pwd.getpwuid(foreign[0].user).pw_name
        except KeyError:
            whose = f"user {foreign[0].user}"
        who = whose if whose == "root" else f"{whose} or root"
        raise StackError(f"{whose} started this stack, of which {foreign[0]} runs: only {who} can stop it")
