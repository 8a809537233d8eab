#!/usr/bin/env bash
# Usage: source scripts/runbook.sh     in bash; or scripts/runbook.sh COMMAND [ARGUMENT...]
#
# The commands of docs/runbook.md, the same for a stack in containers, in production, and of local processes. They ask
# the one that runs, where it really listens. Sourcing defines them as functions and changes nothing else.
#
#   addresses               where it listens
#   services                what runs, and what is down
#   log SERVICE [LINES]     all that it has logged, or the last lines: api, nginx, prometheus, grafana, mongo (the three
#                           members), mongo1, mongo2, mongo3
#   get PATH                what the service answers, by way of nginx; its status if that isn't 200
#   stats, health           get /connection-stats, get /health
#   metrics                 what a container of the API tells Prometheus
#   ask QUERY               Prometheus: a query
#   alerts, targets         Prometheus: what fires; whom it asks, and what is wrong with them
#   workers                 the API's processes, with the ids that this machine has for them
#   inside COMMAND...       run it where the API runs; in containers, in the first one
#   disk                    what is full, and of what
#
# Needs curl; with a python3 answers are indented.

if [[ ${BASH_SOURCE[0]} != "$0" ]]; then
  SLUICE_RUNBOOK=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/runbook.sh
  addresses() { "$BASH" "$SLUICE_RUNBOOK" addresses "$@"; }
  services() { "$BASH" "$SLUICE_RUNBOOK" services "$@"; }
  log() { "$BASH" "$SLUICE_RUNBOOK" log "$@"; }
  get() { "$BASH" "$SLUICE_RUNBOOK" get "$@"; }
  stats() { "$BASH" "$SLUICE_RUNBOOK" stats "$@"; }
  health() { "$BASH" "$SLUICE_RUNBOOK" health "$@"; }
  metrics() { "$BASH" "$SLUICE_RUNBOOK" metrics "$@"; }
  ask() { "$BASH" "$SLUICE_RUNBOOK" ask "$@"; }
  alerts() { "$BASH" "$SLUICE_RUNBOOK" alerts "$@"; }
  targets() { "$BASH" "$SLUICE_RUNBOOK" targets "$@"; }
  workers() { "$BASH" "$SLUICE_RUNBOOK" workers "$@"; }
  inside() { "$BASH" "$SLUICE_RUNBOOK" inside "$@"; }
  disk() { "$BASH" "$SLUICE_RUNBOOK" disk "$@"; }
  return 0
fi

set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# What production insists on needn't be set to look at what runs: nothing is started here.
export TLS_DIRECTORY=${TLS_DIRECTORY:-/} API_KEY_FILE=${API_KEY_FILE:-/dev/null}

# find_stack: the one that runs, else the one that is there
find_stack() {
  local running='' understood='' pid
  if engine_answers; then
    if running=$(compose ps --quiet --status running); then understood=yes; else understood=no; fi
  fi
  if [[ -n $running ]]; then
    stack=containers
  elif pid=$(cat "$SLUICE_HOME/run/supervisord.pid" 2>/dev/null) && [[ -e /proc/$pid ]]; then
    stack=native
  elif [[ $understood == yes && -n $(compose ps --all --quiet) ]]; then
    stack=containers
  elif [[ -d $SLUICE_HOME/logs ]]; then
    stack=native
  elif [[ $understood == no ]]; then
    fail "Docker Compose can't use its files or .env (see above)"
  else
    fail "no stack is there; start one with ./scripts/up.sh"
  fi
}

# published SERVICE PORT: where a container's port is reached from here; nothing if it isn't
published() {
  local found
  found=$(compose port "$1" "$2" 2>/dev/null) || return 0
  case $found in
    *:0 | '') ;;
    0.0.0.0:*) echo "127.0.0.1:${found##*:}" ;;
    :::* | "[::]:"*) echo "[::1]:${found##*:}" ;;
    *) echo "$found" ;;
  esac
}

# told FILE PATTERN: the address or port in what a native stack's server was told
told() {
  sed -nE "s/$2/\\1/p" "$SLUICE_HOME/$1" 2>/dev/null | head -n 1
}

# address SERVICE: the URL of nginx, prometheus, grafana, or a native stack's api; fails where it has none
address() {
  local found='' scheme=http
  case $stack-$1 in
    containers-nginx)
      found=$(published nginx 8443)
      if [[ -n $found ]]; then scheme=https; else found=$(published nginx 8000); fi
      ;;
    containers-prometheus) found=$(published prometheus 9090) ;;
    containers-grafana) found=$(published grafana 3000) ;;
    native-nginx)
      found=$(told nginx/conf/listen.conf '^listen .*\b([0-9]+)\b.*backlog.*')
      found=${found:+127.0.0.1:$found}
      ;;
    native-api | native-prometheus) found=$(told "prometheus/targets/$1.json" '.*"(127[^"]+)".*') ;;
    native-grafana) found=$(told nginx/conf/locations/grafana.conf '.*http:\/\/([0-9.:]+).*') ;;
  esac
  [[ -n $found ]] || fail "$1 doesn't run; 'services' says what does"
  echo "$scheme://$found"
}

# fetch ARGUMENT...: curl, for one's own addresses: by no proxy, and whatever name the certificate is for
fetch() {
  command -v curl >/dev/null || fail "curl is needed, and missing"
  curl -sS --noproxy '*' --insecure --max-time 30 "$@"
}

# indented TEXT: if it is JSON and there is a python3
indented() {
  python3 -m json.tool <<<"$1" 2>/dev/null || printf '%s\n' "$1"
}

get() {
  (($# == 1)) || misuse "get takes one path"
  local url answer
  url=$(address nginx)
  answer=$(fetch --write-out '\n%{http_code}' "$url/${1#/}")
  [[ $answer == *$'\n200' ]] || echo "HTTP status ${answer##*$'\n'}" >&2
  indented "${answer%$'\n'*}"
}

stats() {
  get /connection-stats
}

health() {
  get /health
}

metrics() {
  local url
  if [[ $stack == native ]]; then
    url=$(address api)
    fetch "$url/metrics"
  else
    compose exec -T api python -IS -c "import sys, urllib.request as web
opener = web.build_opener(web.ProxyHandler({}))
sys.stdout.buffer.write(opener.open('http://127.0.0.1:8000/metrics', timeout=10).read())"
  fi
}

# prometheus PATH [ARGUMENT...]: what it answers; fails if it refuses
prometheus() {
  local url answer
  url=$(address prometheus)
  answer=$(fetch "${@:2}" "$url/api/v1/$1")
  indented "$answer"
  [[ $answer == '{"status":"success"'* ]]
}

ask() {
  (($# == 1)) || misuse "ask takes one query, in '…'"
  prometheus query --get --data-urlencode "query=$1"
}

alerts() {
  prometheus alerts
}

targets() {
  prometheus 'targets?state=active'
}

addresses() {
  local service url
  for service in nginx prometheus grafana; do
    if url=$(address "$service" 2>/dev/null); then echo "$service $url"; else echo "$service -"; fi
  done
  [[ $stack != native ]] || echo "logs $SLUICE_HOME/logs"
}

# supervisorctl ARGUMENT...: of the native stack
supervisorctl() {
  "$SLUICE_HOME/venv/bin/python" -m supervisor.supervisorctl -c "$SLUICE_HOME/supervisord.conf" "$@"
}

services() {
  if [[ $stack == containers ]]; then
    compose ps --all
  else
    supervisorctl status || (($? == 3)) # something is down
  fi
}

workers() {
  local pid
  if [[ $stack == containers ]]; then
    [[ -n $(compose ps --quiet --status running api) ]] || fail "api doesn't run; 'services' says what does"
    compose top api
  else
    pid=$(supervisorctl pid api)
    [[ $pid != 0 ]] || fail "api doesn't run; 'services' says what does"
    ps -o pid,ppid,stat,time,args -p "$pid" --ppid "$pid"
  fi
}

inside() {
  (($#)) || misuse "inside takes a command"
  if [[ $stack == containers ]]; then
    # shellcheck disable=SC2016 # for the other shell, of which kill is a part
    compose exec -T api sh -c '"$@"' sh "$@"
  else
    cd "$root/api"
    PATH=$SLUICE_HOME/venv/bin:$PATH
    "$@"
  fi
}

disk() {
  local member
  if [[ $stack == containers ]]; then
    for member in mongo1 mongo2 mongo3; do
      echo "$member"
      compose exec -T "$member" df -h /data/db || true # it is down
    done
    echo "api, its statistics"
    compose exec -T api df -h /dev/shm || true
    docker system df
  else
    df -h "$SLUICE_HOME" /dev/shm
    du -sh "$SLUICE_HOME"/*/
  fi
}

log() {
  local service=${1:-} lines=${2:-all}
  [[ $# -le 2 && $service =~ ^[a-z0-9-]+$ && $lines =~ ^(all|[0-9]+)$ ]] ||
    misuse "log takes a service, and maybe a number of lines"
  if [[ $stack == native ]]; then
    native_log "$service" "$lines"
  else
    local services=("$service")
    [[ $service != mongo ]] || services=(mongo1 mongo2 mongo3)
    [[ -n $(compose ps --all --quiet "${services[@]}") ]] || fail "there is no container of '$service'"
    container_logs --tail "$lines" "${services[@]}"
  fi
}

# native_log SERVICE LINES: what it prints, then what it logs, the oldest first
native_log() {
  local folder=$SLUICE_HOME/logs names=("$1") name suffix files=()
  local suffixes=(.out .log -access.log)
  [[ $2 != all ]] || suffixes=(.out.1 .out .log.{3,2,1} .log -access.log.{3,2,1} -access.log)
  if [[ $1 =~ ^mongo([123]?)$ ]]; then
    mapfile -t names < <(cd "$folder" && printf '%s\n' mongod-*.log | sed -n "${BASH_REMATCH[1]:-1,3}s/\.log$//p")
  fi
  for name in "${names[@]}"; do
    for suffix in "${suffixes[@]}"; do
      if [[ -e $folder/$name$suffix ]]; then files+=("$folder/$name$suffix"); fi
    done
  done
  ((${#files[@]})) || fail "$folder has no log of '$1', but of $(cd "$folder" && printf '%s\n' ./*.{log,out} | sed -n 's|^\./\([^*]*\)\..*|\1|p' | sort -u | paste -sd' ')"
  if [[ $2 == all ]]; then cat "${files[@]}"; else tail -q -n "$2" "${files[@]}"; fi
}

case ${1:-} in
  addresses | services | log | get | stats | health | metrics | ask | alerts | targets | workers | inside | disk)
    find_stack
    "$@"
    ;;
  -h | --help) usage ;;
  '') misuse "source it, or name a command" ;;
  *) misuse "unknown command '$1'" ;;
esac
