#!/usr/bin/env bash
# Reports on the service's log: pool events, slow operations, errors; see --help.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python=${SLUICE_PYTHON:-$SLUICE_HOME/venv/bin/python}
if ! command -v "$python" >/dev/null; then
  python=python3 # the reports need nothing but the standard library
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || fail "Python 3.9 or later is needed"

# names_a_log ARGUMENT...: is there a second argument that is neither an option nor an option's value
names_a_log() {
  local found=0
  while (($#)); do
    case $1 in
      --over) shift || true ;;
      -) found=$((found + 1)) ;;
      -h | --help) return 0 ;;
      -*) ;;
      *) found=$((found + 1)) ;;
    esac
    shift || true
  done
  ((found > 1))
}

# Run by its folder: one called `scripts` where this is typed must not be taken for ours.
export PYTHONPATH=$root
if (($#)) && ! names_a_log "$@" && containers_run; then
  container_logs api | "$python" "$root/scripts/log_report" "$@" -
  exit
fi
exec "$python" "$root/scripts/log_report" "$@"
