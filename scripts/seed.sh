#!/usr/bin/env bash
# Adds realistic users to the running stack's database; see --help.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export SLUICE_HOME=${SLUICE_HOME:-$root/.sluice}
python=${SLUICE_PYTHON:-$SLUICE_HOME/venv/bin/python}

if ! command -v "$python" >/dev/null; then
    if [[ ${1:-} == --help || ${1:-} == -h ]]; then
        python=python3 # the help needs nothing that is installed
    else
        echo "seed.sh: $python is missing: run ./scripts/up.sh first" >&2
        exit 1
    fi
fi

# Safe path: a folder called `scripts` where this is typed must not be taken for ours.
export PYTHONSAFEPATH=1 PYTHONPATH=$root:$root/api
exec "$python" -m scripts.seed "$@"
