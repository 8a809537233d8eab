#!/usr/bin/env bash
# Usage: rollout.sh [--no-build|--settle]
#
# Replaces the containers of the API by new ones, without a failed request: builds the image, doubles the containers,
# waits until the new ones are ready, lets nginx send requests to them only, and stops the old ones once their last
# request is answered. If the new ones don't become ready, they are removed and the old ones go on.
#
# May be interrupted: before the new ones serve it undoes what it did, from then on it finishes. If it is killed, nginx
# sends requests to all that there are, and the next rollout.sh or up.sh undoes or finishes first.
#
# Meanwhile there are twice as many connections: a CONNECTION_BUDGET has to have room for that.
#
#   --no-build   start new containers from the image that is there
#   --settle     only undo or finish what one that was killed has left
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DRAIN_SECONDS=90 # nginx ends its old workers after 60
READ_SECONDS=30  # for nginx to take over other addresses
build=yes settle=
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    --no-build) build= ;;
    --settle) settle=yes ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done
containers_run || fail "no stack runs in containers"
nginx=$(compose ps --quiet --status running nginx)
[[ -n $nginx ]] || fail "nginx doesn't run; ./scripts/up.sh starts it"

phase=prepare # then undo, until the new ones serve, then finish
old=() new=() job='' holding=''

# say MESSAGE...: even where nobody listens any more
say() {
  echo "$@" 2>/dev/null || true
}

# apart COMMAND...: start it where a terminal's Ctrl-C doesn't reach it, and wait for it whatever happens meanwhile
apart() {
  set -m
  "$@" &
  set +m
  local started=$!
  while kill -0 "$started" 2>/dev/null; do wait "$started" || true; done
  wait "$started"
}

# containers [FILTER...]: the API's, running or not
containers() {
  docker ps --all --quiet --no-trunc --filter "label=com.docker.compose.project=$project" \
    --filter label=com.docker.compose.service=api --filter label=com.docker.compose.oneoff=False "$@"
}

# addresses CONTAINER...: where nginx reaches them
addresses() {
  docker inspect --format '{{range $name, $network := .NetworkSettings.Networks}}{{$name}} {{$network.IPAddress}}
{{end}}' "$@" | awk '$1 ~ /_edge$/ {print $2}'
}

# hold: be the one rollout that says where nginx sends requests, until this script ends, however it does
hold() {
  set -m
  coproc holder { exec docker exec -i "$nginx" /sluice/docker/entrypoint.sh hold "${old[@]}"; }
  set +m
  holding=$!
}

# send CONTAINER...: requests go to these only
send() {
  local targets answer
  mapfile -t targets < <(addresses "$@")
  if ((${#targets[@]} < $#)) || ! { echo "${targets[*]}" >&"${holder[1]:-}"; } 2>/dev/null ||
    ! read -r -t "$READ_SECONDS" answer <&"${holder[0]:-}" || [[ $answer != held ]]; then
    fail "nginx doesn't take over where requests go"
  fi
}

# release: follow the name again; there is nothing to undo
release() {
  { echo "done" >&"${holder[1]:-}" && wait "$holding"; } 2>/dev/null
}

# find_new: all but the old ones
find_new() {
  mapfile -t new < <(containers | grep -vxF "$(printf '%s\n' "${old[@]}")")
}

undo() {
  [[ -z $job ]] || { kill -- "-$job" && wait "$job"; } 2>/dev/null
  find_new
  ((${#new[@]} == 0)) || apart docker rm --force "${new[@]}" >/dev/null
  release
}

finish() {
  say "==> stopping the old ones"
  apart docker stop --time 45 "${old[@]}" >/dev/null
  apart docker rm --force "${old[@]}" >/dev/null
  release || true # then nginx follows the name already
}

at_exit() {
  local status=$?
  set +e
  trap '' HUP INT TERM
  case $phase in
    undo)
      undo
      echo "${0##*/}: the rollout failed; the old containers serve on" >&2
      ;;
    finish)
      finish || status=1
      ((status == 0)) && say "==> done ($SECONDS s)"
      ;;
  esac
  exit "$status"
}

# heed_signals: end at once, by way of at_exit
heed_signals() {
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# from_here_on: a signal is heeded no more
from_here_on() {
  trap 'say "==> the new ones serve already: finishing"' HUP INT TERM
}

# drain: until nginx has no request at the old ones any more
drain() {
  phase=finish
  local waited
  apart sleep 1 # not cut short by a signal, before nginx has begun
  for ((waited = 0; waited < DRAIN_SECONDS; waited++)); do
    [[ $(apart docker top "$nginx" 2>/dev/null) == *"shutting down"* ]] || break
    apart sleep 1
  done
}

trap at_exit EXIT
trap '' PIPE
heed_signals
project=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$nginx")

# settle: after one that was killed
settle() {
  local left
  left=$(docker exec "$nginx" cat /run/nginx/rollout 2>/dev/null) || return 0
  mapfile -t old < <(containers | grep -xF "${left// /$'\n'}")
  hold
  find_new
  if ((${#old[@]} == 0 || ${#new[@]} == 0)); then
    release
  elif [[ $(containers --filter health=healthy | grep -cxF "$(printf '%s\n' "${new[@]}")") == "${#new[@]}" ]]; then
    say "==> finishing what an interrupted rollout has left"
    from_here_on
    send "${new[@]}"
    drain
    finish
  else
    say "==> undoing what an interrupted rollout has left"
    send "${old[@]}"
    undo
  fi
  phase=prepare old=() new=()
  heed_signals
}

settle
[[ -z $settle ]] || exit 0
[[ -z $build ]] || compose build --quiet api

mapfile -t old < <(containers --filter status=running)
hold
send "${old[@]}" # Docker names containers that don't listen yet, too
phase=undo
find_new # those that have stopped: Compose would start them again instead of new ones
count=$((${#old[@]} + ${#new[@]}))
((${#new[@]} == 0)) || docker rm --force "${new[@]}" >/dev/null

# With --no-deps, whose containers Compose takes for outdated, the next `up` would recreate all of them.
say "==> $count new containers beside ${#old[@]} old ones"
set -m
compose up --detach --no-recreate --wait --scale api=$((${#old[@]} + count)) api >/dev/null 2>&1 </dev/null &
set +m
job=$!
wait "$job" || {
  compose logs --no-color --tail 3 api >&2
  false
}
job=
find_new
((${#new[@]} == count))

from_here_on
say "==> nginx sends requests to the new ones only"
send "${new[@]}"
drain
