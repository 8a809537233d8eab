# shellcheck shell=bash
# What the scripts share: where the repository is, and the virtual environment of the native stack.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SLUICE_HOME=${SLUICE_HOME:-$root/.sluice}
export SLUICE_HOME

# fail MESSAGE: say why and stop
fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

# usage: print the comment at the top of the script
usage() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
}

# make_venv FOLDER LOCK...: a virtual environment with exactly what the lock files name; made anew when they change
make_venv() {
  local venv=$1
  shift
  local wanted
  wanted=$(cat "$@" | sha256sum)
  [[ -x $venv/bin/python && $(cat "$venv/locks.sha256" 2>/dev/null) == "$wanted" ]] && return
  command -v python3 >/dev/null || fail "python3 is missing; 3.11 or later is needed"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "python3 is $(python3 -V | cut -d' ' -f2); 3.11 or later is needed"
  echo "==> installing Python packages (PyPI) into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv" || fail "python3 has no venv module; on Debian: apt-get install python3-venv"
  local requirements=()
  local lock
  for lock in "$@"; do requirements+=(-r "$lock"); done
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes "${requirements[@]}"
  echo "$wanted" >"$venv/locks.sha256"
}
