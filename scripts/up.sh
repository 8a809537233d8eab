#!/usr/bin/env bash
# Usage: up.sh [-d] [--native|--docker] [--driver pymongo|motor] [--workers N]
#
# Starts the whole stack and returns when it is ready: nginx, the API's Gunicorn workers, a three-member MongoDB
# replica set and Prometheus. Installs what is missing (PyPI, apt), keeps everything below .sluice/, and may be run
# again at any time. Without -d it then shows the API's log; Ctrl-C stops the stack.
#
#   -d, --detach   return once the stack is ready; down.sh stops it
#   --native       run the services as local processes (the only way so far, and the default)
#   --docker       run them with Docker Compose (not there yet)
#   --driver NAME  MONGODB_DRIVER: pymongo or motor
#   --workers N    WORKERS: Gunicorn workers
#
# Settings come from .env or the environment, see .env.example; run up.sh again to apply changed ones. SLUICE_PORT,
# SLUICE_API_PORT, SLUICE_MONGO_PORT (the first of three), SLUICE_PROMETHEUS_PORT, SLUICE_NGINX_EXPORTER_PORT and
# SLUICE_NGINX_STATUS_PORT move the stack; with another SLUICE_HOME (environment only) too, a second runs beside it.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

arguments=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    -d | --detach) arguments+=(--detach) ;;
    --native) ;;
    --docker) fail "Docker Compose comes with a later version; --native runs the same services as local processes" 2 ;;
    --driver | --workers)
      (($# > 1)) || misuse "$1 needs a value"
      arguments+=("$1" "$2")
      shift
      ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done

make_venv "$SLUICE_HOME/venv" "$root/api/requirements.lock" "$root/scripts/requirements.lock"
native_path
exec "$SLUICE_HOME/venv/bin/python" "$root/scripts/native/up.py" "${arguments[@]}"
