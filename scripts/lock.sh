#!/usr/bin/env bash
# Usage: lock.sh
#
# Pins every dependency with its hashes, from api/pyproject.toml and each requirements.in. Needs uv.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit
command -v uv >/dev/null || fail "uv is missing: pip install uv"

# lock SOURCE TARGET [OPTION...]
lock() {
  uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-header "$1" -o "$2" "${@:3}"
}

cd "$root"
lock api/pyproject.toml api/requirements.lock
lock api/pyproject.toml api/requirements-dev.lock --group api/pyproject.toml:dev
git ls-files -z '*requirements.in' | while IFS= read -r -d '' source; do lock "$source" "${source%.in}.lock"; done
