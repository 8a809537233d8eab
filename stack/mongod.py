"""The `mongod` that a member is: which one, and its command line. Standard library only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from stack.home import ROOT

REPLICA_SET = "rs0"
OPLOG_PATIENCE = 1
"""Seconds, beside half of the election timeout, that a secondary waits for a member that has gone silent before it
copies from another one. Nothing has a majority meanwhile; MongoDB's own 5 are counted twice."""

TRANSACTION_SECONDS = 15
"""How long a transaction may take: a little more than a request. One whose client was killed holds what it has written
until then, and half as long again; MongoDB's own limit is 60."""


def find_mongod() -> Path:
    """`SLUICE_MONGOD`, the one that the scripts install, or one on PATH. Raises `FileNotFoundError`."""
    for candidate in (os.environ.get("SLUICE_MONGOD"), ROOT / ".sluice/bin/mongod", shutil.which("mongod")):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise FileNotFoundError("no mongod: ./scripts/test.sh installs one, or set SLUICE_MONGOD")


def mongod_command(
    program: Path,
    port: int,
    *,
    data: Path,
    log: Path,
    cache_gb: float,
    shutdown_ms: int,
    replica_set: str | None = REPLICA_SET,
    oplog_mb: int = 64,
    key_file: Path | None = None,
    parameters: Mapping[str, object] | None = None,
) -> list[str]:
    """A server on loopback, a member of this set unless that is None.

    `shutdown_ms`: how long a primary that is asked to end waits for another one, 15 s by default. With a `key_file`
    clients need a name and a password. `parameters` are the server's.
    """
    given = {
        "shutdownTimeoutMillisForSignaledShutdown": shutdown_ms,
        "oplogNetworkTimeoutBufferSeconds": OPLOG_PATIENCE,
        "transactionLifetimeLimitSeconds": TRANSACTION_SECONDS,
        **(parameters or {}),
    }
    return [
        str(program),
        *(("--replSet", replica_set) if replica_set else ()),
        *(("--keyFile", str(key_file)) if key_file else ()),
        "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(data), "--wiredTigerCacheSizeGB", str(cache_gb),
        *(("--oplogSize", str(oplog_mb)) if replica_set else ()),
        "--nounixsocket", "--logpath", str(log), "--logappend", "--logRotate", "reopen",
        *(word for name, value in given.items() for word in ("--setParameter", f"{name}={value}")),
    ]  # fmt: skip
