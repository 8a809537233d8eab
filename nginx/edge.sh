#!/bin/sh
# Usage: edge.sh FOLDER   write there what nginx.conf takes from TRUSTED_PROXIES and CORS_ORIGINS, and tls.conf from
#                         SLUICE_HTTPS_PORT
#
# The first two are lists with commas; the API's settings check them.
set -eu
here=$(dirname "$0")
folder=$1

items() {
  echo "$1" | tr ',' '\n' | sed 's/ //g; /^$/d'
}

proxies=none
if [ -n "${TRUSTED_PROXIES:-}" ]; then
  proxies=trusted
  if ! nginx -V 2>&1 | grep -q http_realip_module; then
    echo "TRUSTED_PROXIES=$TRUSTED_PROXIES: allowed is none, since this nginx lacks http_realip_module" >&2
    exit 1
  fi
fi
cp "$here/proxies/$proxies.conf" "$folder/proxies.conf"
items "${TRUSTED_PROXIES:-}" | sed 's/.*/set_real_ip_from &;/' >"$folder/set_real_ip_from.conf"
items "${TRUSTED_PROXIES:-}" | sed 's/.*/& 1;/' >"$folder/proxies_list.conf"
items "${CORS_ORIGINS:-}" | sed 's/.*/"1 &" "&";/; s/^"1 \*".*/"~^1 ." "*";/' >"$folder/cors_origins.conf"
case ${SLUICE_HTTPS_PORT:-443} in
  443) port= ;;
  *) port=:$SLUICE_HTTPS_PORT ;;
esac
echo "return 308 https://\$host$port\$request_uri;" >"$folder/to_https.conf"
