"""What is known about the request that is being served; read by the logs and the error pages."""

from __future__ import annotations

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The W3C trace id, only where the caller sent one."""
