"""The configuration file of this stack's supervisord."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping

from stack.home import STACK, StackError
from stack.layout import Layout
from stack.programs import FILES, Program

_UNSAFE = re.compile(r"[\"\r\n]|^'|'$|\s[;#]")


def supervisord_conf(layout: Layout, programs: Mapping[str, Program]) -> str:
    """The text that starts these programs. Raises `StackError` for a value that it can't hold."""
    head = {
        "unix_http_server": {"file": str(layout.socket), "chmod": "0700"},
        "supervisord": {
            "logfile": str(layout.logs / "supervisord.log"),
            "logfile_maxbytes": "5MB",
            "pidfile": str(layout.home / "run" / "supervisord.pid"),
            "minfds": str(FILES),
            "directory": str(layout.home),
            **({"user": "root"} if os.getuid() == 0 else {}),  # else it warns
        },
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{layout.socket}"},
    }
    sections = head | {f"program:{name}": _section(layout, name, program) for name, program in programs.items()}
    return "\n".join(
        f"[{title}]\n" + "".join(f"{key}={value.replace('%', '%%')}\n" for key, value in section.items())
        for title, section in sections.items()
    )


def _section(layout: Layout, name: str, program: Program) -> dict[str, str]:
    """A program that is started again whenever it dies, and stopped with all of its children."""
    state = hashlib.sha256(b"".join(path.read_bytes() for path in program.reads if path.is_file())).hexdigest()
    return {
        "command": shlex.join(program.command),
        "environment": _environment({STACK: str(layout.home), **program.environment, "SLUICE_CONFIGURATION": state}),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": "1",
        "startretries": "10",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": str(layout.logs / f"{name}.out").replace("%", "%%"),  # this one is expanded twice
        "stdout_logfile_maxbytes": "5MB",
        "stdout_logfile_backups": "1",
        **program.options,
    }


def _environment(variables: dict[str, str]) -> str:
    for name, value in variables.items():
        if _UNSAFE.search(value):
            raise StackError(f"{name}: allowed is a value without \", line ends, ' ;', ' #', and ' at an end of it")
    return ",".join(f'{name}="{value}"' for name, value in variables.items())
