#!/usr/bin/env bash
# Usage: bench.sh [--quick] [--only NAME]... [--repeat N] [--seconds S] [--results FILE] [--no-plots] [--report]
#
# Measures Sluice, the bare drivers and the usual templates in turn, on a replica set of its own (loopback, temporary
# files, no authentication). Prints tables and plots, and stores the figures; a workload that is measured again replaces
# its own, and no other's.
#
#   --quick         the same in under two minutes, with less certainty
#   --only NAME     pool, fairness, sizes, http, overload, instrumentation or profile
#   --repeat N      how often the sides take turns (default: 3; quick: 1)
#   --seconds S     length of each measurement; wrk's are whole seconds
#   --results FILE  where the figures go (default: bench/results/)
#   --no-plots      draw no pictures
#   --report        measure nothing: put the figures into docs/performance.md
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for argument; do if [[ $argument == -h || $argument == --help ]]; then usage && exit; fi; done

venv=$SLUICE_HOME/bench-venv
python_path
make_venv "$venv" "$root/api/requirements.lock" "$root/bench/requirements.lock"
venv=$(folder_of "$venv")
case " $* " in
  *" --report "*) ;;
  *)
    "$venv/bin/python" -m stack.install --mongod "$SLUICE_HOME/bin/mongod" nginx wrk
    export SLUICE_MONGOD=$SLUICE_HOME/bin/mongod
    ;;
esac
exec "$venv/bin/python" -m bench "$@"
