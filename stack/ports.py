"""Whether a stack's ports are free, asked before anything is started."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from stack.home import StackError
from stack.layout import Port

ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def refuse_taken(
    ports: Mapping[str, Port], is_own: Callable[[int], bool], *, everywhere: frozenset[str] = frozenset()
) -> None:
    """Raises `StackError` for a port that somebody else listens on, or that this user may not open.

    `is_own`: whether a process id is of the stack itself; `everywhere`: those that will listen on every address.
    """
    for name, port in ports.items():
        # localhost, as people type it, may be ::1, too.
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            wild = name in everywhere and family == socket.AF_INET
            problem = _problem(family, "" if wild else address, port.number)
            if problem is None:
                continue
            if problem == errno.EACCES:
                raise StackError(
                    f"port {port.number} for {name} may not be opened by this user:"
                    f" choose one from 1024 with {port.setting}"
                )
            owner = _owner(port.number)
            if owner is None and _problem(family, "" if wild else address, port.number) is None:
                continue  # it has just ended
            if owner is None or not is_own(owner.pid):
                whose = f" by {owner.name()} (process {owner.pid})" if owner is not None else ""
                raise StackError(
                    f"port {port.number} for {name} is taken{whose}: end that, or choose another with {port.setting}"
                )


def _problem(family: socket.AddressFamily, address: str, port: int) -> int | None:
    """The error number of listening there; None where nothing is in the way, also if there's no such address."""
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            probe.listen()
    except OSError as error:
        return None if error.errno in ABSENT else error.errno
    return None


def _owner(port: int) -> psutil.Process | None:
    """Who listens there, if the system tells."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                return psutil.Process(connection.pid)
    return None
