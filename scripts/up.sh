#!/usr/bin/env bash
# Usage: up.sh [-d] [--native|--docker] [--driver pymongo|motor] [--workers N]
#
# Starts the whole stack and returns when it is ready: nginx, the API's Gunicorn workers, a three-member MongoDB
# replica set, Prometheus, and Grafana (beside local processes where one is on PATH). May be run again at
# any time. Without -d it then shows the API's log; Ctrl-C stops the stack.
#
#   -d, --detach   return once the stack is ready; down.sh stops it
#   --docker       run it with Docker Compose (the default where an engine answers)
#   --native       run the services as local processes (the default elsewhere): installs what is missing (PyPI, apt)
#                  and keeps everything below .sluice/
#   --driver NAME  MONGODB_DRIVER: pymongo or motor
#   --workers N    WORKERS: Gunicorn workers
#
# Settings come from .env or the environment, see .env.example; run up.sh again to apply changed ones. SLUICE_PORT,
# SLUICE_PROMETHEUS_PORT and SLUICE_GRAFANA_PORT move the stack, and for local processes SLUICE_API_PORT,
# SLUICE_MONGO_PORT (the first of three), SLUICE_NGINX_EXPORTER_PORT and SLUICE_NGINX_STATUS_PORT. With other ports a
# second stack runs beside it, from another folder or with another COMPOSE_PROJECT_NAME or SLUICE_HOME (environment
# only). SLUICE_RUN=native or docker is as good as the flag.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

way=${SLUICE_RUN:-}
detach=
arguments=() without=()
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    -d | --detach) detach=yes arguments+=(--detach) ;;
    --native | --docker) way=${1#--} ;;
    --driver | --workers)
      (($# > 1)) || misuse "$1 needs a value"
      if [[ $1 == --driver ]]; then export MONGODB_DRIVER=$2; else export WORKERS=$2; fi
      arguments+=("$1" "$2")
      shift
      ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done

# address SERVICE PORT [SCHEME]: where it is published, as people type it; nothing if it isn't
address() {
  local published
  published=$(compose port "$1" "$2" 2>/dev/null) || return 0
  [[ $published == *:0 ]] || echo "${3:-http}://localhost:${published##*:}"
}

# find_ports: before anything is started, see that nobody else has the ports; without Grafana's there is still an API
find_ports() {
  local service address port target setting ours
  ours=$(docker ps --filter "label=com.docker.compose.project=$(compose config | sed -n 's/^name: //p')" --format '{{.Ports}}')
  while read -r service address port target; do
    [[ $ours != *":$port->"* ]] || continue
    case $service:$target in
      nginx:8443) setting=SLUICE_HTTPS_PORT ;;
      nginx:8080) setting=SLUICE_HTTP_PORT ;;
      nginx:*) setting=SLUICE_PORT ;;
      prometheus:*) setting=SLUICE_PROMETHEUS_PORT ;;
      *) setting=SLUICE_GRAFANA_PORT ;;
    esac
    [[ $address != 0.0.0.0 ]] || address=127.0.0.1
    if ! (: <"/dev/tcp/$address/$port") 2>/dev/null; then continue; fi
    [[ $service == grafana ]] || fail "port $port for $service is taken: end what listens there, or choose another with $setting"
    echo "==> port $port is taken: no Grafana; $setting chooses another"
    without=(--scale grafana=0)
  done < <(compose config | awk '
    /^  [a-z]/ {service = $1; sub(":", "", service)}
    /^      - mode:/ {address = "0.0.0.0"}
    $1 == "host_ip:" {address = $2}
    $1 == "target:" {target = $2}
    $1 == "published:" {gsub("\"", ""); print service, address, $2, target}')
}

# outdated: have the settings or the image of the API's containers changed
outdated() {
  local wanted hash image name
  wanted=$(compose config --hash api)
  while read -r hash image name; do
    [[ $hash == "${wanted#* }" && $image == "$(docker image inspect --format '{{.Id}}' "$name")" ]] || return 0
  done < <(compose ps --quiet --status running api | xargs docker inspect \
    --format '{{index .Config.Labels "com.docker.compose.config-hash"}} {{.Image}} {{.Config.Image}}')
  return 1
}

# replace_api: beside those containers that serve, which `compose up` would stop first. Once what they need is there; and
# after nginx where that is to do less: let nobody else in, keep idle connections for less long.
replace_api() {
  local tries
  [[ $(compose config nginx) =~ SLUICE_API_KEY_IS_SET:\ \"?yes ]] || compose up --detach --wait --no-deps nginx
  compose run --rm --no-deps --no-TTY configure-nginx python -m stack.nginx --before-the-api /nginx
  for ((tries = 0; tries < 20; tries++)); do
    ! compose exec -T nginx cmp -s /derived/version /run/nginx/version || break
    sleep 0.5
  done
  compose up --detach --quiet-pull mongo-init
  "$root/scripts/rollout.sh" --no-build
}

up_in_containers() {
  unset SLUICE_RUN
  engine_answers || fail "no Docker engine with Compose 2 answers; --native runs the same services as local processes"
  if containers_run; then "$root/scripts/rollout.sh" --settle; fi
  mark_project
  echo "==> Docker Compose: building and starting the stack${COMPOSE_PROJECT_NAME:+ $COMPOSE_PROJECT_NAME}"
  compose config --quiet || fail "Docker Compose can't use these settings (see above); nothing was changed"
  compose build --quiet
  compose run --rm --no-deps --no-TTY settings || fail "nothing was changed"
  find_ports
  if containers_run && [[ -n $(compose ps --quiet --status running nginx) ]] && outdated; then
    replace_api || fail "the API can't be replaced (see above)"
  fi
  if ! compose up --detach --wait --quiet-pull "${without[@]}"; then
    compose logs --no-color --tail 3 api mongo-init nginx >&2 || true
    fail "the stack does not come up (see above); docker compose logs shows more"
  fi
  local api grafana
  api=$(address nginx 8443 https)
  api=${api:-$(address nginx 8000)}
  grafana=$(address grafana 3000)
  cat <<END

Sluice is ready ($SECONDS s).

  API            $api
  documentation  $api/docs
  pools          $api/connection-stats
  health         $api/health
  Prometheus     $(address prometheus 9090)
END
  if [[ -n $grafana ]]; then
    cat <<END
  Grafana        $api/grafana/ (to change something: admin, with the password that this shows:
                 docker compose exec grafana cat /secrets/grafana/admin_password)
END
  fi
  cat <<END

  ./scripts/seed.sh --users 100000     fill the database
  ./scripts/logs.sh slow               what is slow, and where
  ./scripts/down.sh                    stop everything
END
  [[ -z $detach ]] || return 0
  trap 'trap "" INT TERM; echo; echo "==> stopping"; compose stop; exit' INT TERM
  container_logs --follow --tail 20 api || true
  compose stop
}

case $way in
  docker) up_in_containers && exit ;;
  native) ;;
  "") if engine_answers; then up_in_containers && exit; fi ;;
  *) fail "SLUICE_RUN='$way': allowed is native or docker" 2 ;;
esac

make_venv "$SLUICE_HOME/venv" "$root/api/requirements.lock" "$root/scripts/requirements.lock"
python_path
exec "$(folder_of "$SLUICE_HOME/venv")/bin/python" -m stack.up "${arguments[@]}"
