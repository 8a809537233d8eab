#!/usr/bin/env bash
# Usage: restore.sh [--yes] FILE
#
# Puts the collections that FILE, made by backup.sh, holds in the place of those in the running stack's database: what
# was written since is gone, and what the service writes meanwhile. Other collections stay, and so do a collection's
# schema and indexes. A file that is damaged changes nothing, nor does Ctrl-C before all of it is stored. Of two
# restores at once the second is refused.
#
#   --yes   don't ask
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

yes='' file=''
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    --yes) yes=1 ;;
    -*) misuse "unknown argument '$1'" ;;
    *)
      [[ -z $file ]] || misuse "one file is all it takes"
      file=$1
      ;;
  esac
  shift
done
[[ -n $file ]] || misuse "which file?"
[[ -r $file ]] || fail "$file can't be read"
[[ ! -d $file ]] || fail "$file is a folder"
if [[ -z $yes ]]; then
  read -rp "Replace what is in the database with $file? [y/N] " answer || answer=''
  [[ -n $answer || -t 0 ]] || fail "nothing was changed; where nobody answers: --yes"
  [[ $answer == [yY]* ]] || fail "nothing was changed"
fi
run_backup restore <"$file"
