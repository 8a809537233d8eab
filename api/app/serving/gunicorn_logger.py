"""Gunicorn's logger, with our handlers in place of its own."""

from __future__ import annotations

from gunicorn.config import Config
from gunicorn.glogging import Logger

from app.observe.logs import intercept, silence


class InterceptedLogger(Logger):
    """Writes to the service's log; Gunicorn sets up its loggers again at every reload."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        intercept(self.error_log)
        silence(self.access_log)
