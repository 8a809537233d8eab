#!/usr/bin/env bash
# Usage: test.sh [--python VERSION] [PYTEST ARGUMENT...]
#
# Sets up everything that the tests need (PyPI, apt), then checks style and types and runs all the tests, on real
# servers that they start and stop themselves; at last the core's and the API's tests on the image's Python, too, where
# there is one. With arguments, only pytest runs, with these:
#
#   test.sh api/tests/sluice -k turnstile
#
#   --python VERSION  run pytest on this Python (3.12), which is on PATH or pyenv's, in an environment of its own
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit

cd "$root"
venv=$SLUICE_HOME/test-venv
if [[ ${1:-} == --python ]]; then
  version=${2:-}
  [[ $version =~ ^3\.[0-9]+$ ]] || misuse "--python=$version: allowed is a version like 3.12"
  base_python=$(find_version "$version") || fail "there is no Python $version on PATH or in pyenv"
  venv+=-$version
  shift 2
  (($#)) || set -- api/tests
fi
make_venv "$venv" api/requirements-dev.lock scripts/requirements.lock grafana/requirements.lock drill/requirements.lock
venv=$(folder_of "$venv")
PYTHONPATH=$root "$venv/bin/python" -m stack.install --mongod "$SLUICE_HOME/bin/mongod" \
  nginx prometheus promtool prometheus-nginx-exporter wrk shellcheck busybox
export PATH=$venv/bin:$PATH SLUICE_MONGOD=$SLUICE_HOME/bin/mongod SLUICE_PYTHON=$venv/bin/python
if (($#)); then
  echo "==> pytest"
  exec python -m pytest "$@"
fi

echo "==> ruff, mypy, shellcheck"
ruff check .
ruff format --check .
mypy
git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x
echo "==> the core's and the API's tests"
failed=0
python -m pytest --numprocesses=2 api/tests || failed=1
echo "==> the stacks' and the scripts' tests"
python -m pytest tests || failed=1
((failed == 0)) || exit 1

version=$(image_python)
if [[ $(python --version) == "Python $version."* ]]; then exit; fi
if ! find_version "$version" >/dev/null; then
  echo "==> skipped: the core's and the API's tests on the image's Python $version; none is on PATH or in pyenv"
  exit
fi
echo "==> the core's and the API's tests on the image's Python $version"
exec "$root/scripts/test.sh" --python "$version" --numprocesses=2 api/tests
