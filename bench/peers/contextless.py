"""Sluice without metrics and logs, and without what it tells each caller: request id, trace, Server-Timing."""

from __future__ import annotations

from app.http.middleware import Context
from bench.peers.unmeasured import app, leave_out

__all__ = ["app"]

leave_out(Context)
