#!/bin/sh
# Usage: entrypoint.sh                 write nginx's configuration below $run and run nginx
#        entrypoint.sh only ADDRESS…   send requests to these addresses of the API only, from now on
#        entrypoint.sh all             follow the name `api` again
#
# SLUICE_LISTEN is the folder beside this file that says where to listen: plain or tls.
set -eu
here=$(dirname "$0")
run=/run/nginx
conf=$run/conf

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
  echo "  keepalive 512;"
  echo "  keepalive_timeout $((${KEEP_ALIVE:-5} * 800))ms;  # below KEEP_ALIVE"
  echo "  keepalive_requests 1000000;"
  echo "}"
}

# The longer of the API's two limits, and then some: its own answer is the better one.
read_timeout() {
  request=$(((${REQUEST_TIMEOUT_MS:-10000} + 999) / 1000))
  worker=${TIMEOUT:-30}
  echo $(((request > worker ? request : worker) + 5))
}

apply() {
  mv "$conf/upstream.draft" "$conf/upstream.conf"
  nginx -p $run -c $conf/nginx.conf -s reload
}

case ${1:-} in
  only)
    shift
    upstream "$@" >"$conf/upstream.draft"
    apply
    exit
    ;;
  all)
    upstream >"$conf/upstream.draft"
    apply
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

mkdir -p $conf/locations $run/logs
cp "$here/../nginx.conf" "$here/../mime_types.conf" "$here/../problem.conf" "$here"/*.conf "$here/${SLUICE_LISTEN:-plain}"/*.conf $conf/
mv $conf/grafana.conf $conf/again.conf $conf/locations/
"$here/../edge.sh" $conf
ln -sf /dev/stdout $run/logs/nginx-access.log
upstream >"$conf/upstream.conf"
body=${MAX_BODY_BYTES:-1048576}
cat >$conf/limits.conf <<END
client_max_body_size $body;      # MAX_BODY_BYTES
client_body_buffer_size $body;   # so that no body touches a disk
proxy_read_timeout $(read_timeout)s;  # above REQUEST_TIMEOUT_MS and TIMEOUT
proxy_next_upstream_tries 0;  # as many as there are entries: most may be of containers that don't listen yet, or have gone
proxy_next_upstream_timeout 10s;
END
echo "limit_conn in_progress $((${MAX_REQUESTS_IN_PROGRESS:-300} * ${WORKERS:-2} * ${API_CONTAINERS:-1}));" >$conf/in_progress.conf
nginx -t -q -p $run -c $conf/nginx.conf # what is wrong is said here, before a pipe can swallow it
exec "$here/../run.sh" $run/errors nginx -p $run -c $conf/nginx.conf
