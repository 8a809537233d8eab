#!/bin/bash
# As much of the official image's entrypoint as the stack relies on: root becomes mongodb, and an empty member gets
# its first user from a temporary server on loopback, which knows neither the set nor its key.
set -Eeuo pipefail

if [[ ${1:0:1} == - ]]; then
  set -- mongod "$@"
fi
if [[ $1 == mongod && $(id -u) == 0 ]]; then
  find /data/db /data/configdb \! -user mongodb -exec chown mongodb:mongodb {} +
  chown --dereference mongodb "/proc/$$/fd/1" "/proc/$$/fd/2" || :
  exec setpriv --reuid=mongodb --regid=mongodb --init-groups "${BASH_SOURCE[0]}" "$@"
fi
if [[ $1 == mongod ]]; then
  for name in MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD; do
    file=${name}_FILE
    if [[ -n ${!file:-} ]]; then
      declare -x "$name=$(<"${!file}")"
    fi
  done
  if [[ -n ${MONGO_INITDB_ROOT_USERNAME:-} && ! -e /data/db/WiredTiger ]]; then
    mongod --bind_ip 127.0.0.1 --fork --logpath /tmp/first.log --pidfilepath /tmp/first.pid >/dev/null
    /opt/shell/bin/python /usr/local/bin/create_root.py
    mongod --shutdown >/dev/null
    rm -f /tmp/first.*
    echo "MongoDB init process complete; ready for start up."
  fi
  unset "${!MONGO_INITDB_@}"
  case " $* " in *" --bind_ip"*) ;; *) set -- "$@" --bind_ip_all ;; esac
fi
exec "$@"
