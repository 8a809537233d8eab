"""The applications that are compared over HTTP, and what is asked of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

KINDS = ("read", "list", "create", "bulk", "mix")
WAYS = ("nginx", "direct")
KEY = "bench"
_SLUICE = ["-c", "gunicorn.conf.py"]
_TEMPLATE = ["-k", "uvicorn_worker.UvicornWorker", "-w", "1", "--keep-alive", "5", "--no-control-socket"]


@dataclass(frozen=True)
class App:
    """An application under Gunicorn; `database` is its own."""

    name: str
    module: str
    database: str
    sluice: bool = True

    def command(self, port: int) -> list[str]:
        bind = ["-b", f"127.0.0.1:{port}"]
        return [sys.executable, "-m", "gunicorn", *(_SLUICE if self.sluice else _TEMPLATE), *bind, self.module]


SLUICE = App("Sluice", "main:app", "sluice")
CEILING = App("no database", "bench.peers.ceiling:app", "ceiling")
UNMEASURED = App("unmeasured", "bench.peers.unmeasured:app", "unmeasured")
CONTEXTLESS = App("contextless", "bench.peers.contextless:app", "contextless")
MOTOR = App("Motor template", "bench.peers.motor_template:app", "motor_template", sluice=False)
PYMONGO = App("PyMongo template", "bench.peers.pymongo_template:app", "pymongo_template", sluice=False)
SETUP = [
    "Every server: one Gunicorn worker (uvloop, httptools, no access log), keep-alive 5 s, no recycling of workers;"
    " all of them run throughout, and one is measured at a time. wrk, nginx and MongoDB share the machine.",
    "Sluice: as it comes, with an API key. no database: the same application with one more route, which answers a"
    " constant as large as a user.",
    "Templates: uvicorn's own worker class, the driver's client with its defaults, FastAPI response models, the same"
    " request models and the same indexes as Sluice, but no request ids, timings, metrics, deadlines or ETags.",
    "nginx: the project's configuration, one instance per server.",
]
