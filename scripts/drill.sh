#!/usr/bin/env bash
# Usage: drill.sh [NAME]... [--quick] [--driver pymongo|motor]... [--json FILE] [--report]
#                 [--minutes N] [--list]
#
# Lets things fail on a native stack of its own (loopback, ports and a folder of its own, beside any other), under load,
# and counts what that costs. Without names, everything. Ends with 1 where something was lost, wrong, or later than its
# bounds, or was named and can't be tried here. See docs/reliability.md. As root it makes a network and file systems of
# its own, which some drills need.
#
#   --list         name all drills, and what they do
#   --quick        those that the tests run
#   --driver NAME  pymongo (default) or motor; may be given twice
#   --json FILE    write all figures there
#   --report       put the figures into docs/reliability.md, too, and the soak's plot beside it
#   --minutes N    how long the soak takes (10)
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for argument; do if [[ $argument == -h || $argument == --help ]]; then usage && exit; fi; done

venv=$SLUICE_HOME/drill-venv
python_path
make_venv "$venv" "$root/api/requirements.lock" "$root/scripts/requirements.lock" "$root/drill/requirements.lock" \
  "$root/bench/requirements.lock" # its plots
venv=$(folder_of "$venv")
case " $* " in
  *" --list "*) ;;
  *)
    programs=(nginx prometheus prometheus-nginx-exporter)
    ((EUID == 0)) && programs+=(iptables ip) # for a network of its own
    "$venv/bin/python" -m stack.install --mongod "$SLUICE_HOME/bin/mongod" "${programs[@]}"
    export SLUICE_MONGOD=$SLUICE_HOME/bin/mongod
    ;;
esac
exec "$venv/bin/python" -m drill "$@"
