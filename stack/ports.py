"""Whether a stack's ports are its own and free, asked before anything is started."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import psutil

from stack import grafana_server
from stack.home import StackError
from stack.layout import Layout, Port
from stack.output import say
from stack.processes import of_stack

ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def check_ports(layout: Layout, *, opens_to_others: bool) -> Layout:
    """The layout, without Grafana where only that can't be had. Raises `StackError` for a port with two uses, or as
    `refuse_taken` does.

    `opens_to_others`: whether nginx will listen on every address.
    """

    _refuse_two_uses(layout)

    def is_own(pid: int) -> bool:
        return pid in {process.pid for process in of_stack(layout.home)}

    refuse_taken(layout.ports, is_own, everywhere=frozenset({"nginx"} if opens_to_others else ()))
    try:
        if grafana := grafana_server.installed(layout):
            refuse_taken({"grafana": grafana.port}, is_own)
    except StackError as error:
        say(f"without Grafana: {error}")
        return replace(layout, grafana=None)
    return layout


def _refuse_two_uses(layout: Layout) -> None:
    uses: dict[int, str] = {}
    grafana = {"grafana": layout.grafana} if layout.grafana and grafana_server.command_on_path() else {}
    for port in (layout.ports | grafana).values():
        other = uses.setdefault(port.number, port.setting)
        if other != port.setting:
            raise StackError(f"{port.setting}={port.number}: allowed is a port of its own, {other} has this one")


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
