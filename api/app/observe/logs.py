"""Logs: everything, the standard library's loggers included, goes through Loguru to one shared stream of lines."""

from __future__ import annotations

import atexit
import json
import logging
import re
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from loguru import logger

from app.http import context
from app.observe import worker_slot
from app.observe.log_limit import LogLimit
from app.observe.log_sink import FileSink, StreamSink
from app.observe.masks import Masks
from app.settings.model import Settings

if TYPE_CHECKING:
    from loguru import Message, Record

Origin = tuple[str, str, str]
_LOGGERS = ("uvicorn", "uvicorn.error", "gunicorn.error")
_ACCESS = ("uvicorn.access", "gunicorn.access")
"""The service's own access log says more."""
_STDOUT = 1
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line somewhere, or tells a terminal what to do; a path that a caller chose may hold it."""
_INDENT = "  "
"""Before each line of a traceback: an exception's text may look like a record."""
_QUIET = ("pymongo", "asyncio", "watchfiles")
"""Loggers that say nothing below WARNING: the driver would log a line per waiting operation while MongoDB is away."""


class Intercept(logging.Handler):
    """Hands the standard library's records over to Loguru, with their places; problems up to a limit."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = LogLimit(self.emit)
        self.addFilter(self._limit)

    def flush(self) -> None:
        """Tell what the limit has left out so far."""
        self._limit.flush()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def place(line: Record) -> None:
            line.update({"name": record.name, "function": record.funcName, "line": record.lineno})

        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = f"{record.msg} {record.args}"
        logger.patch(place).opt(exception=record.exc_info).log(level, "{}", message)


_handler = Intercept()
"""One for all loggers of the process, so that their limit is one."""
atexit.register(lambda: _handler.flush())  # before Loguru's own, which ends all writing


class Logs:
    """Formats records, hides secrets and writes each with one call."""

    def __init__(self, settings: Settings) -> None:
        self._format = _as_json if settings.log_format == "json" else _as_text
        self._masked = Masks(settings.secrets)
        self._sink = (
            FileSink(settings.log_file)
            if settings.log_file is not None
            else StreamSink(_STDOUT, settings.stats_dir / "log.lock")
        )

    def __call__(self, message: Message) -> None:
        record = message.record
        # Before they are escaped for the line, which changes how a secret looks.
        text = self._format(record, self._masked(record["message"]), self._masked(_traceback(record)), self._origin())
        self._sink.write(text.encode("utf-8", "backslashreplace"))

    def _origin(self) -> Origin:
        """The worker's number, and the request's id and trace, which the caller may have chosen."""
        number = worker_slot.number()
        worker = "-" if number is None else str(number)
        return worker, self._masked(context.request_id.get()), context.trace_id.get()


def set_up(settings: Settings) -> None:
    """Send all logs of this process where the settings say. Later calls replace earlier ones."""
    global _handler
    _handler = Intercept()
    logger.remove()
    logger.add(Logs(settings), level=settings.log_level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_handler], level=settings.log_level, force=True)
    logging.captureWarnings(True)
    for name in _LOGGERS:
        intercept(logging.getLogger(name))
    for name in _ACCESS:
        silence(logging.getLogger(name))
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))


def intercept(source: logging.Logger) -> None:
    """Give a logger our handler in place of its own; uvicorn's worker takes over those of Gunicorn's logger."""
    source.handlers = [_handler]
    source.propagate = False


def silence(source: logging.Logger) -> None:
    """Take a logger all handlers, by which uvicorn decides whether to log requests at all."""
    source.handlers = []
    source.propagate = False


def _as_text(record: Record, message: str, traceback: str, origin: Origin) -> str:
    worker, request, trace = origin
    traced = f" trace={trace}" if trace else ""
    head = (
        f"{record['time']:YYYY-MM-DD HH:mm:ss.SSS} | {record['level'].name} | worker={worker} request={request}{traced}"
        f" | {record['name']}:{record['function']}:{record['line']} - {_one_line(message)}\n"
    )
    lines = traceback.removesuffix("\n").split("\n") if traceback else []
    return head + "".join(f"{_INDENT}{_one_line(line)}\n" for line in lines)


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _as_json(record: Record, message: str, traceback: str, origin: Origin) -> str:
    worker, request, trace = origin
    line: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "worker": worker,
        "request": request,
        "module": record["name"],
        "function": record["function"],
        "line": record["line"],
        "message": message,
    }
    if trace:
        line["trace"] = trace
    if record["exception"] is not None:
        line["exception"] = traceback
    return json.dumps(line, ensure_ascii=False, default=str) + "\n"


def _traceback(record: Record) -> str:
    exception = record["exception"]
    if exception is None or exception.type is None:
        return ""
    return "".join(format_exception(exception.type, exception.value, exception.traceback))
