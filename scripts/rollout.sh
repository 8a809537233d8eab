#!/usr/bin/env bash
# Usage: rollout.sh [--no-build]
#
# Replaces the containers of the API by new ones, without a failed request: builds the image, doubles the containers,
# waits until the new ones are ready, lets nginx send requests to them only, and stops the old ones once their last
# request is answered. If the new ones don't become ready, they are removed and the old ones go on.
#
# Meanwhile there are twice as many connections: a CONNECTION_BUDGET has to have room for that.
#
#   --no-build   start new containers from the image that is there
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

DRAIN_SECONDS=90 # nginx ends its old workers after 60
build=yes
while (($#)); do
  case $1 in
    -h | --help) usage && exit ;;
    --no-build) build= ;;
    *) misuse "unknown argument '$1'" ;;
  esac
  shift
done
containers_run || fail "no stack runs in containers"

# addresses CONTAINER...: where nginx reaches them
addresses() {
  docker inspect --format '{{range $name, $network := .NetworkSettings.Networks}}{{$name}} {{$network.IPAddress}}
{{end}}' "$@" | awk '$1 ~ /_edge$/ {print $2}'
}

upstream() {
  compose exec -T nginx /sluice/docker/entrypoint.sh "$@"
}

[[ -z $build ]] || compose build --quiet api
mapfile -t old < <(compose ps --quiet --status running api)
count=${#old[@]}
new=()

give_up() {
  trap - EXIT
  ((${#new[@]})) || mapfile -t new < <(compose ps --all --quiet api | grep -vxF "$(printf '%s\n' "${old[@]}")")
  upstream all || true
  ((${#new[@]} == 0)) || docker rm --force "${new[@]}" >/dev/null
  fail "the rollout failed; the old containers serve on"
}
trap give_up EXIT

mapfile -t targets < <(addresses "${old[@]}")
upstream only "${targets[@]}" # Docker names containers that don't listen yet, too
# With --no-deps, whose containers Compose takes for outdated, the next `up` would make all of them anew.
echo "==> $count new containers beside $count old ones"
compose up --detach --no-recreate --wait --scale api=$((count * 2)) api >/dev/null 2>&1 || {
  compose logs --no-color --tail 3 api >&2
  false
}
mapfile -t new < <(compose ps --quiet api | grep -vxF "$(printf '%s\n' "${old[@]}")")
((${#new[@]} == count))

echo "==> nginx sends requests to the new ones only"
mapfile -t targets < <(addresses "${new[@]}")
upstream only "${targets[@]}"
trap - EXIT # from here on the new ones serve
sleep 1
for ((waited = 0; waited < DRAIN_SECONDS; waited++)); do
  compose top nginx | grep -q "shutting down" || break
  sleep 1
done

echo "==> stopping the old ones"
docker stop --time 45 "${old[@]}" >/dev/null
docker rm "${old[@]}" >/dev/null
upstream all
echo "==> done ($SECONDS s)"
