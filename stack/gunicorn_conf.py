"""Gunicorn's configuration for a local stack: the service's own, with settings that a reload reads again.

A process can't be given another environment while it runs, so they are in a file (`SLUICE_API_SETTINGS`).
"""

import json
import os
import runpy
from pathlib import Path

_NAMES = "SLUICE_API_SETTINGS_NAMES"

_given = json.loads(Path(os.environ["SLUICE_API_SETTINGS"]).read_text())["environment"]
for _name in os.environ.get(_NAMES, "").split():
    os.environ.pop(_name, None)
os.environ.update(_given)
os.environ[_NAMES] = " ".join(_given)
globals().update(runpy.run_path("gunicorn.conf.py"))

# A killed master's workers go on serving, and the next one must be able to listen meanwhile. Whether a stack's ports
# are its own is found out before anything is started.
reuse_port = True
