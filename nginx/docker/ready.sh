#!/bin/sh
# Usage: ready.sh   wait until the API is ready and nginx runs with the current settings, and say where everything is
set -eu

# Not by way of nginx's own port, where this would be a line in its log.
ready() {
  wget -q -T 5 -O /dev/null http://api:8000/health/ready &&
    [ "$(wget -q -T 5 -O - http://nginx:8002/version)" = "$(cat /derived/version)" ]
}

tries=60
until ready 2>/dev/null; do
  tries=$((tries - 1))
  if [ $tries = 0 ]; then
    echo "not ready: docker compose logs api nginx" >&2
    exit 1
  fi
  sleep 1
done
case ${SLUICE_LISTEN:-plain} in
  tls) api=https://localhost:${SLUICE_PORT:-443} ;;
  *) api=http://localhost:${SLUICE_PORT:-8000} ;;
esac
echo "Sluice is ready: API $api ($api/docs), Grafana $api/grafana/, Prometheus http://localhost:${SLUICE_PROMETHEUS_PORT:-9090}"
