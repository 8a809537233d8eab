#!/bin/sh
# Usage: run.sh PIPE COMMAND...
#
# Becomes COMMAND, an nginx whose error log is its standard error; limit_errors.awk passes that on, by way of PIPE, which
# is recreated.
set -eu
here=$(dirname "$0")
pipe=$1
shift
flags=
if awk -W interactive 'BEGIN {}' >/dev/null 2>&1; then flags="-W interactive"; fi # mawk would wait for whole buffers
rm -f "$pipe"
mkfifo -m 600 "$pipe"
# shellcheck disable=SC2086 # two words or none
awk $flags -f "$here/limit_errors.awk" <"$pipe" >&2 &
exec "$@" 2>"$pipe"
