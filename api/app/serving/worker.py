"""The Gunicorn worker: uvicorn on uvloop, alive as long as its loop and its master are."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from app.serving.http_protocol import HttpProtocol
from app.serving.leaving import PatientServer
from app.serving.orphans import end_once_orphaned
from app.serving.succession import Board, Place

HEARTBEAT = 1.0
LISTENERS = 8
RETRY = 2.0
"""Seconds until another worker is tried in the place of one that can't start."""
_PR_SET_PDEATHSIG = 1
BOARD = Board()
"""Of the workers of this process, or of its master."""


class SluiceWorker(UvicornWorker):  # type: ignore[misc]
    """Drains for Gunicorn's `graceful_timeout`, and refuses more than `worker_connections` at once."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012 - as the base class declares it
        "loop": "uvloop",
        "http": HttpProtocol,
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
    }

    def __init__(self, age: int, ppid: int, listeners: Any, app: Any, timeout: float, cfg: Config, log: Logger) -> None:
        self.place = BOARD.take()
        # In the master, which forgets a worker that has ended: nobody need configure a hook.
        weakref.finalize(self, _free, self.place, os.getpid()).atexit = False
        umask = os.umask(0)
        os.umask(umask)
        try:
            super().__init__(age, ppid, listeners, app, timeout, cfg, log)
        except (OSError, RuntimeError) as error:  # no room for the heartbeat's file: the master would end for good
            os.umask(umask)
            other = tempfile.gettempdir()
            log.error("WORKER_TMP_DIR=%s takes no file, %s is used: %s", cfg.worker_tmp_dir, other, error)
            cfg.set("worker_tmp_dir", other)
            super().__init__(age, ppid, listeners, app, timeout, cfg, log)
        self.config.callback_notify = None  # `_beat` does it; and it would keep the worker from being forgotten
        self.config.limit_concurrency = self.cfg.worker_connections
        # Gunicorn kills at its own limit; the lifespan needs time before that.
        self.config.timeout_graceful_shutdown = max(1, self.cfg.graceful_timeout - 2)

    def init_process(self) -> None:
        end_once_orphaned(self.ppid, self.cfg.graceful_timeout)
        try:
            super().init_process()
        except Exception:
            if self.booted:
                raise
            self._give_way()
            raise

    def _give_way(self) -> None:
        """Where this worker can't start and others serve, end in a way that lets Gunicorn try again in a moment: at a
        boot error, it ends them, too. Their code may be older than what is in the files now."""
        if self.place.others_serve():
            self.log.error("this worker does not start; others serve on", exc_info=sys.exc_info()[0] is not None)
            time.sleep(RETRY)
            sys.exit(1)

    async def _serve(self) -> None:
        # uvicorn's own heartbeat pauses while it starts and drains, which looks like a hang.
        beating = asyncio.create_task(self._beat())
        self.sockets: list[socket.socket] = repeated(self.sockets)
        self.config.app = self.wsgi
        server = PatientServer(self.config, self.place)
        self._install_sigquit_handler()
        try:
            await server.serve(sockets=self.sockets)
        finally:
            beating.cancel()
        if not server.started:
            self._give_way()
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def _beat(self) -> None:
        while True:
            self.notify()
            await asyncio.sleep(HEARTBEAT)


def _free(place: Place, master: int) -> None:
    if os.getpid() == master:
        place.free()


def repeated(sockets: Sequence[socket.socket]) -> list[socket.socket]:
    """Each listening socket `LISTENERS` times: under each, libuv accepts one connection per step of the event loop.

    A busy loop takes tens of milliseconds for a step, and new connections would wait for seconds.
    """
    return [*sockets, *(each.dup() for each in sockets for _ in range(LISTENERS - 1))]


def die_with_master(worker: Worker) -> None:
    """Let the kernel stop this worker when its master dies: a killed master can't tell, and a new one would start
    workers beside the old."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != worker.ppid:  # it died just before
        os.kill(os.getpid(), signal.SIGTERM)
