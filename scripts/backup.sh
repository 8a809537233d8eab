#!/usr/bin/env bash
# Usage: backup.sh [FILE]
#
# Saves the running stack's database to FILE (default: sluice-<time>.backup here), from one snapshot, while it serves.
# The file appears once it is whole, in place of an older one of its name. restore.sh puts it back.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit
if (($# > 1)) || [[ ${1:-} == -* ]]; then misuse "${*@Q}: allowed is one file"; fi

file=${1:-sluice-$(date +%Y%m%d-%H%M%S).backup}
[[ ! -d $file ]] || fail "$file is a folder"
umask 077
draft=$(mktemp "$file.XXXXXX" 2>/dev/null) || fail "$file can't be written"
trap 'rm -f "$draft"' EXIT
run_backup dump >"$draft" || fail "no backup was made"
gzip -t "$draft" || fail "no backup was made: it isn't whole" # a container's client may not notice a full disk
mv "$draft" "$file"
echo "==> $file: $(du -h "$file" | cut -f1)"
