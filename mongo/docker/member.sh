#!/bin/bash
# A member of the replica set: mongod wants its key in a file of its own that nobody else may read, and the volume's
# belongs to whoever made the secrets. Then the image's own entrypoint takes over.
set -euo pipefail
install -m 0400 -o mongodb -g mongodb /secrets/stack/mongo_key /run/mongo/key
if [[ -n ${MONGO_INITDB_ROOT_PASSWORD_FILE:-} ]]; then
  install -m 0400 -o mongodb -g mongodb /secrets/stack/admin_password "$MONGO_INITDB_ROOT_PASSWORD_FILE"
fi
# With these kernels MongoDB 8's allocator crashes unless glibc has restartable sequences to itself
# (https://jira.mongodb.org/browse/SERVER-121912); with others the image's own choice is the faster one.
if [[ $(uname -r) =~ ^([0-9]+)\.([0-9]+)(\.([0-9]+))? ]]; then
  kernel=$((BASH_REMATCH[1] * 1000000 + BASH_REMATCH[2] * 1000 + ${BASH_REMATCH[4]:-0}))
  if ((kernel >= 6019000 && kernel < 7000014)); then export GLIBC_TUNABLES=glibc.pthread.rseq=1; fi
fi
exec docker-entrypoint.sh mongod --keyFile /run/mongo/key "$@"
