#!/bin/sh
# Usage: entrypoint.sh            write nginx's configuration below $run, run nginx, and follow the name `api`
#        entrypoint.sh hold ID…   for a rollout that replaces the containers ID…: send requests to the addresses in the
#                                 latest line of standard input only. Once that ends, for whatever reason, nginx
#                                 follows the name again; without a line `done`, $run/rollout still has the ids.
#
# SLUICE_LISTEN is the folder beside this file that says where to listen: plain or tls.
set -eu
here=$(dirname "$0")
run=/run/nginx
conf=$run/conf
derived=/derived # by stack/nginx.py

# in_service: the addresses behind the name
in_service() {
  getent ahostsv4 api | awk '$2 == "STREAM" {print $1}' | sort -u
}

# upstream [ADDRESS…]: without any, the addresses behind the name. Each is listed several times: a stopping worker closes
# many idle connections at once, and nginx tries each entry at most once per request. max_fails=0, since the last one
# must not be taken out of service.
upstream() {
  echo "upstream api {"
  echo "  zone api 1m;"
  for _ in 1 2 3 4 5 6 7 8; do
    if [ $# = 0 ]; then
      echo "  server api:8000 resolve max_fails=0;"
    else
      for address; do echo "  server $address:8000 max_fails=0;"; done
    fi
  done
  echo "  include upstream_connections.conf;"
  echo "}"
}

# in_progress COUNT: what so many containers are given at once
in_progress() {
  echo "limit_conn in_progress $(($(cat $run/requests_per_container) * ($1 > 0 ? $1 : 1)));"
}

# configure [ADDRESS…]: as `upstream`, with the limit that belongs to it; $run/serving says for whom that is
configure() {
  upstream "$@" >"$conf/upstream.draft"
  [ $# -gt 0 ] && serving=held || serving=$(in_service | wc -l)
  in_progress "$([ $# -gt 0 ] && echo $# || echo "$serving")" >"$conf/in_progress.draft"
  mv "$conf/upstream.draft" "$conf/upstream.conf"
  mv "$conf/in_progress.draft" "$conf/in_progress.conf"
  echo "$serving" >$run/serving
}

reload() {
  kill -HUP "$(cat $run/nginx.pid)"
}

# take_derived: what follows from the settings. `version` is read first, since it was written last: where the others change
# meanwhile, it's an older one, and they are taken again.
take_derived() {
  version=$(cat $derived/version)
  cp $derived/*.conf $conf/
  cp $derived/requests_per_container $run/
  {
    cat "$here/listen_status.conf"
    echo "location = /version { return 200 $version; }" # for ready.sh
  } >$conf/listen_status.conf
  printf %s "$version" >$run/version
}

# follow: change the limit with the number of containers, take over changed settings, and end what a rollout has left;
# unless one is under way
follow() (
  flock -n 9 || exit 0
  serving=$(in_service | wc -l)
  if [ "$(cat $run/serving)" = held ] || { [ "$serving" -gt 0 ] && [ "$serving" != "$(cat $run/serving)" ]; } ||
    ! cmp -s $derived/version $run/version; then
    take_derived
    configure
    reload
  fi
) 9>$run/hold

hold() {
  exec 9>$run/hold
  tries=5 # `follow` has it for a moment
  until flock -n 9; do
    tries=$((tries - 1))
    if [ $tries = 0 ]; then
      echo "another rollout is under way" >&2
      exit 1
    fi
    sleep 1
  done
  trap 'configure && reload' EXIT
  trap exit HUP INT TERM
  echo "$*" >$run/rollout
  while read -r line; do
    if [ "$line" = "done" ]; then
      rm $run/rollout
      break
    fi
    # shellcheck disable=SC2086 # addresses
    configure $line
    reload
    echo held
  done
}

case ${1:-} in
  hold)
    shift
    hold "$@"
    exit
    ;;
esac

case ${SLUICE_ADDRESS:-127.0.0.1} in
  127.* | ::1 | "[::1]") ;;
  *)
    if [ -z "${SLUICE_API_KEY_IS_SET:-}" ]; then
      echo "nginx: SLUICE_ADDRESS=$SLUICE_ADDRESS lets others in, which needs an API_KEY or API_KEY_FILE" >&2
      exit 1
    fi
    ;;
esac

if [ "${SLUICE_LISTEN:-plain}" = tls ]; then
  for file in fullchain.pem privkey.pem; do
    if [ ! -r /run/tls/$file ]; then
      echo "nginx: TLS_DIRECTORY: $file must be there and readable for uid $(id -u); a link that leads out of the folder," \
        "as certbot's are, leads nowhere in a container: docs/compose.md" >&2
      exit 1
    fi
  done
fi

mkdir -p $conf/locations $run/logs
cp "$here/../nginx.conf" "$here/../mime_types.conf" "$here/../problem.conf" "$here"/*.conf "$here/${SLUICE_LISTEN:-plain}"/*.conf $conf/
mv $conf/grafana.conf $conf/again.conf $conf/locations/
ln -sf /dev/stdout $run/logs/nginx-access.log
trap exit INT QUIT TERM
tries=0
until [ -f $derived/version ]; do # at the first start
  tries=$((tries + 1))
  [ $tries != 30 ] || echo "nginx: waits for its configuration, which the service configure-nginx makes" >&2
  sleep 1
done
take_derived
configure
nginx -t -q -p $run -c $conf/nginx.conf # what is wrong is said here, before a pipe can swallow it
# Until there is somebody to send requests to, nginx would complain every second.
tries=60
while [ -z "$(in_service)" ] && [ $tries -gt 0 ]; do
  tries=$((tries - 1))
  sleep 1
done
configure
while sleep 2; do follow || true; done &
exec "$here/../run.sh" $run/errors nginx -p $run -c $conf/nginx.conf
