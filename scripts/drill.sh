#!/usr/bin/env bash
# Lets things fail on a stack of its own, under load, and counts what that costs; see --help.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

venv=$SLUICE_HOME/drill-venv
python_path
make_venv "$venv" "$root/api/requirements.lock" "$root/scripts/requirements.lock" "$root/drill/requirements.lock" \
  "$root/bench/requirements.lock" # its plots
case " $* " in
  *" -h "* | *" --help "* | *" --list "*) ;;
  *)
    "$venv/bin/python" -m stack.install --mongod "$SLUICE_HOME/bin/mongod" nginx prometheus prometheus-nginx-exporter
    export SLUICE_MONGOD=$SLUICE_HOME/bin/mongod
    ;;
esac
exec "$venv/bin/python" -m drill "$@"
