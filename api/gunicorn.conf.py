"""Gunicorn's configuration, from the service's settings. Run in `api/`: `gunicorn main:app`."""

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker

from app.observe import logs
from app.serving.gunicorn_logger import InterceptedLogger
from app.serving.worker import SluiceWorker, die_with_master
from app.settings.startup import check, refresh, warn

settings = refresh()  # ends the master in one line if they are wrong; at a reload the old ones stay
logs.set_up(settings)
warn()

bind = settings.bind
workers = settings.workers
worker_class = SluiceWorker
worker_connections = settings.worker_connections
worker_tmp_dir = str(settings.worker_tmp_dir)  # the heartbeat's files: on a disk, a slow write would look like a hang
preload_app = settings.preload
max_requests = settings.max_requests
max_requests_jitter = settings.max_requests_jitter
timeout = settings.timeout
graceful_timeout = settings.graceful_timeout
keepalive = settings.keep_alive
logger_class = InterceptedLogger
control_socket_disable = True  # it wants a writable home


def nworkers_changed(server: Arbiter, new: int, old: int | None) -> None:
    """The workers that there will be, also with `-w`: the connection budget counts them."""
    check(refresh(workers=new), again=old is not None)


def post_worker_init(worker: Worker) -> None:
    """After the worker's user was changed, which makes the kernel forget what it was told."""
    die_with_master(worker)
