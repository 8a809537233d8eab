#!/usr/bin/env bash
# Usage: test.sh [PYTEST ARGUMENT...]
#
# Sets up everything that the tests need (PyPI, apt), then checks style and types and runs all the tests, on real
# servers that they start and stop themselves. With arguments, only pytest runs, with these:
#
#   test.sh api/tests/sluice -k turnstile
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit

cd "$root"
venv=$SLUICE_HOME/test-venv
make_venv "$venv" api/requirements-dev.lock scripts/requirements.lock grafana/requirements.lock
PYTHONPATH=$root "$venv/bin/python" -m stack.install --mongod "$SLUICE_HOME/bin/mongod" \
  nginx prometheus promtool prometheus-nginx-exporter wrk shellcheck busybox
export PATH=$venv/bin:$PATH SLUICE_MONGOD=$SLUICE_HOME/bin/mongod SLUICE_PYTHON=$venv/bin/python

if (($# == 0)); then
  echo "==> ruff, mypy, shellcheck"
  ruff check .
  ruff format --check .
  mypy
  git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x
fi
echo "==> pytest"
exec python -m pytest "$@"
