#!/usr/bin/env bash
# Usage: down.sh [--purge]
#
# Stops what up.sh started, and nothing else. Data and logs stay for the next start.
#
#   --purge   delete them too, and the secrets
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

arguments=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    --purge) arguments+=(--purge) ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done

[[ -x $SLUICE_HOME/venv/bin/python ]] || { echo "==> nothing was ever started in $SLUICE_HOME" && exit; }
native_path
exec "$SLUICE_HOME/venv/bin/python" "$root/scripts/native/down.py" "${arguments[@]}"
