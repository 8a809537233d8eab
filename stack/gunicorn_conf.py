"""Gunicorn's configuration for a local stack: the service's own, with settings that a reload reads again.

A process can't be given another environment while it runs, so they are in a file (`SLUICE_API_SETTINGS`).
"""

import hashlib
import json
import os
import runpy
import socket
from pathlib import Path

from app.settings import startup

_NAMES = "SLUICE_API_SETTINGS_NAMES"

_text = Path(os.environ["SLUICE_API_SETTINGS"]).read_bytes()
_given = json.loads(_text)["environment"]
for _name in os.environ.get(_NAMES, "").split():
    os.environ.pop(_name, None)
os.environ.update(_given)
os.environ[_NAMES] = " ".join(_given)
globals().update(runpy.run_path("gunicorn.conf.py"))
if not startup.refused():  # else the old ones stay, which whoever has changed them has to know
    Path(os.environ["SLUICE_API_SETTINGS_TAKEN"]).write_text(hashlib.sha256(_text).hexdigest())

# A killed master's workers go on serving, and the next one must be able to listen meanwhile. (Gunicorn's `reuse_port`
# would give each worker a queue of its own, and what is in it is lost with it.)
_LISTENING = "SLUICE_API_LISTENING"
if _LISTENING not in os.environ:  # else this is a reload
    _host, _, _port = globals()["bind"].rpartition(":")
    _socket = socket.socket()
    _socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _socket.bind((_host, int(_port)))
    os.environ[_LISTENING] = f"fd://{_socket.detach()}"
bind = os.environ[_LISTENING]
