"""Turns the dashboards into the JSON that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import mongodb, nginx, overview, pools

FOLDER = Path(__file__).resolve().parent / "dashboards"


def dashboards() -> dict[str, str]:
    """The text of each file in `FOLDER`."""
    built: dict[str, Dashboard] = {
        "overview": overview.build(),
        "pools": pools.build(),
        "mongodb": mongodb.build(),
        "nginx": nginx.build(),
    }
    return {
        f"{name}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, board in built.items()
    }


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)
