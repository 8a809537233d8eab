#!/usr/bin/env bash
# Usage: lock.sh
#
# Pins every dependency with its hashes, from each requirements.in. Needs uv.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit
(($# == 0)) || misuse "${*@Q}: allowed is nothing"
command -v uv >/dev/null || fail "uv is missing: pip install uv"

cd "$root"
git ls-files -z '*requirements*.in' | while IFS= read -r -d '' source; do
  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header "$source" -o "${source%.in}.lock"
done
