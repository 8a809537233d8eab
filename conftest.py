"""For all tests: what listens on this machine is asked directly, also where a proxy is set for the rest."""

from __future__ import annotations

import os

OWN = "localhost,127.0.0.1,::1"

_rest = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{OWN},{_rest}" if _rest else OWN
for _name in ("all_proxy", "ALL_PROXY"):  # httpx wants a package for a SOCKS proxy, even if it is never used
    os.environ.pop(_name, None)
