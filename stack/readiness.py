"""Whether servers that were started serve yet."""

from __future__ import annotations

import json
import urllib.request


def answers(url: str) -> bool:
    """Whether it does, and with success."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 our own stack
            return True
    except OSError:
        return False


def all_targets_up(prometheus: str, count: int) -> bool:
    """Whether the Prometheus of this address has scraped all of so many targets."""
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/targets", timeout=5) as answer:  # noqa: S310
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        return False
    return len(targets) == count and all(target["health"] == "up" for target in targets)
