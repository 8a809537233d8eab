#!/usr/bin/env bash
# Measures Sluice against the bare drivers and the usual templates; see --help.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$SLUICE_HOME/bench-venv
python_path
make_venv "$venv" "$root/api/requirements.lock" "$root/bench/requirements.lock"
case " $* " in
  *" -h "* | *" --help "* | *" --report "*) ;;
  *)
    "$venv/bin/python" -m stack.install --mongod "$SLUICE_HOME/bin/mongod" nginx wrk
    export SLUICE_MONGOD=$SLUICE_HOME/bin/mongod
    ;;
esac
exec "$venv/bin/python" -m bench "$@"
