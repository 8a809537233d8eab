#!/usr/bin/env bash
# Usage: down.sh [--purge]
#
# Stops what up.sh started, and nothing else. Data and logs stay for the next start.
#
#   --purge   delete them too, and the secrets
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

arguments=() volumes=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    --purge) arguments+=(--purge) volumes+=(--volumes) ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done

if engine_answers && [[ -n $(compose ps --all --quiet 2>/dev/null) ]]; then
  compose down --remove-orphans "${volumes[@]}"
  echo "==> stopped"
elif engine_answers && ((${#volumes[@]})); then
  compose down "${volumes[@]}"
fi
if ((${#volumes[@]})) && engine_answers; then unmark_project; fi
[[ -x $SLUICE_HOME/venv/bin/python ]] || exit 0
native_path
exec "$SLUICE_HOME/venv/bin/python" "$root/scripts/native/down.py" "${arguments[@]}"
