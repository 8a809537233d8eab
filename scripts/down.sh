#!/usr/bin/env bash
# Usage: down.sh [--purge]
#
# Stops what up.sh started, and nothing else. Data and logs stay for the next start.
#
#   --purge   delete them too, and the secrets
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

arguments=() volumes=() without_env=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    --purge) arguments+=(--purge) volumes+=(--volumes) ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done

if engine_answers; then
  if ! containers=$(compose ps --all --quiet 2>&1); then
    # Not even a broken .env may keep them alive; the project's name is then that of the environment, or its default.
    echo "==> ${containers##*$'\n'}: going on without .env" >&2
    without_env=(--env-file /dev/null)
    containers=$(compose "${without_env[@]}" ps --all --quiet) || fail "containers can't be stopped (see above)"
  fi
  if [[ -n $containers ]]; then
    compose "${without_env[@]}" down --remove-orphans "${volumes[@]}"
    echo "==> stopped"
  elif ((${#volumes[@]})); then
    compose "${without_env[@]}" down "${volumes[@]}"
  fi
fi
if ((${#volumes[@]})) && engine_answers; then unmark_project; fi
has_linux || exit 0
[[ -d $SLUICE_HOME ]] || exit 0
python_path
# Its packages may be broken, or be another user's: it needs none.
for python in "$SLUICE_HOME/venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
  if "$python" -c '' 2>/dev/null; then
    exec "$python" -m stack.down "${arguments[@]}"
  fi
done
fail "a Python is needed to stop local processes, and there is none"
