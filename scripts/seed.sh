#!/usr/bin/env bash
# Adds realistic users to the running stack's database; see --help.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case " $* " in
  *" -h "* | *" --help "* | *" --url"*) ;;
  *)
    if containers_run; then
      terminal=(-T)
      [[ -t 0 && -t 1 ]] && terminal=()
      compose --progress quiet build seed
      compose run --rm --no-deps "${terminal[@]}" seed python -m scripts.seed "$@"
      exit
    fi
    ;;
esac

python=${SLUICE_PYTHON:-$SLUICE_HOME/venv/bin/python}
if ! command -v "$python" >/dev/null; then
  if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    python=python3 # the help needs nothing that is installed
  else
    fail "$python is missing: run ./scripts/up.sh first"
  fi
fi

python_path
exec "$python" -m scripts.seed "$@"
