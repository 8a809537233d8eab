"""Where the lines come from: a file, a gzipped one, or standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

GZIP_MAGIC = b"\x1f\x8b"


class SourceError(Exception):
    """The log can't be read; the text says why."""


@contextmanager
def open_logs(names: Sequence[str]) -> Iterator[Iterable[bytes]]:
    """Open logs to read them as one, one after the other. Raises `SourceError` as `open_log` does."""
    with ExitStack() as stack:  # the last one first: what rotation takes from it meanwhile is in the one before
        opened = [stack.enter_context(open_log(name)) for name in reversed(names)]
        yield chain.from_iterable(reversed(opened))


@contextmanager
def open_log(name: str) -> Iterator[Iterable[bytes]]:
    """Open a log for reading; `-` is standard input. What is gzipped is known by its first bytes, not by its name.

    Raises `SourceError`, also for what goes wrong while it is read.
    """
    try:
        with _buffered(name) as file:
            if file.peek(2)[:2] == GZIP_MAGIC:  # which can't begin a line of text
                with gzip.open(file) as unzipped:
                    yield unzipped
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{name} is a damaged gzip file: {error}") from None
    except OSError as error:
        raise SourceError(f"{name} can't be read: {error.strerror or error}") from None


def _buffered(name: str) -> io.BufferedReader:
    # Standard input belongs to the interpreter: it stays open.
    return open(sys.stdin.fileno() if name == "-" else name, "rb", closefd=name != "-")
