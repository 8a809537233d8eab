"""What up.sh says once the stack is ready."""

from __future__ import annotations

from pathlib import Path

from stack import grafana_server
from stack.layout import Layout


def summary(layout: Layout, seconds: float) -> str:
    """Where everything is; `seconds`: how long the start took."""
    password = _short(grafana_server.password(layout))
    grafana = (
        f"""
  Grafana        {layout.url}/grafana/ (to change something: admin, with the password in
                 {password})"""
        if grafana_server.installed(layout)
        else ""
    )
    return f"""
Sluice is ready ({seconds:.0f} s).

  API            {layout.url}
  documentation  {layout.url}/docs
  pools          {layout.url}/connection-stats
  health         {layout.url}/health
  Prometheus     http://localhost:{layout.prometheus.number}{grafana}
  logs           {_short(layout.logs)}

  ./scripts/seed.sh --users 100000     fill the database
  ./scripts/logs.sh slow               what is slow, and where
  ./scripts/down.sh                    stop everything"""


def _short(path: Path) -> str:
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)
