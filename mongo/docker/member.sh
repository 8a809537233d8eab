#!/bin/bash
# A member of the replica set: mongod wants its key in a file of its own that nobody else may read, and the volume's
# belongs to whoever made the secrets. Then the image's own entrypoint takes over.
set -euo pipefail
install -m 0400 -o mongodb -g mongodb /secrets/stack/mongo_key /run/mongo/key
if [[ -n ${MONGO_INITDB_ROOT_PASSWORD_FILE:-} ]]; then
  install -m 0400 -o mongodb -g mongodb /secrets/stack/admin_password "$MONGO_INITDB_ROOT_PASSWORD_FILE"
fi
exec docker-entrypoint.sh mongod --keyFile /run/mongo/key "$@"
