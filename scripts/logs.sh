#!/usr/bin/env bash
# Reports on the service's log: pool events, slow operations, errors; see --help.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export SLUICE_HOME=${SLUICE_HOME:-$root/.sluice}
python=${SLUICE_PYTHON:-$SLUICE_HOME/venv/bin/python}
if ! command -v "$python" >/dev/null; then
    python=python3 # the reports need nothing but the standard library
fi

# Safe path: a folder called `scripts` where this is typed must not be taken for ours.
export PYTHONSAFEPATH=1 PYTHONPATH=$root
exec "$python" -m scripts.log_report "$@"
