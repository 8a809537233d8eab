"""`python -m grafana.checks [http://localhost:9090]`: which panels, variables and alerts get nothing to show there?

Wants a stack that runs under load, and gives the slowest rules their minute and a half. Exits with 1 if any is empty.
"""

from __future__ import annotations

import sys

from grafana.checks.live import unanswered
from grafana.checks.sources import live_expressions

address = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:9090"
expressions = live_expressions()
missing = unanswered(address, expressions)
sys.stdout.writelines(f"{place}\n  returns {problem}\n" for place, problem in missing.items())
sys.stdout.write(f"{len(expressions)} expressions, {len(missing)} return nothing\n")
sys.exit(bool(missing))
