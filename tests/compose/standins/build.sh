#!/usr/bin/env bash
# Usage: build.sh FOLDER MONGOD
#
# Builds stand-ins for the official images that docker-compose.yml names, for a machine with a Docker engine but no
# image registry: from Debian's packages and a mongod. Also unpacks Compose and buildx into FOLDER/cli-plugins.
# Needs root, mmdebstrap and DOCKER_HOST; changes nothing outside FOLDER. The tags lie: mongod is what could be had,
# nginx, Prometheus and its exporter are Debian's of today. Python is Debian's of the version that the tag names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
compose_file=$here/../../../docker-compose.yml
folder=$1 mongod=$2
mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
slim=(--variant=minbase --mode=root --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"'
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*'
  --dpkgopt='path-exclude=/usr/share/locale/*')

say() { echo "[${SECONDS}s] $*"; }

# unpack SUITE TARGET PACKAGE...: packages of another suite, leaving the host's apt alone
unpack() {
  local suite=$1 target=$2 state=$folder/apt-$1
  shift 2
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/empty" "$target"
  echo "deb [signed-by=$keyring] $mirror $suite main" >"$state/list"
  local options=(-qq -o Dir::Etc::SourceList="$state/list" -o Dir::Etc::SourceParts="$state/empty"
    -o Dir::Etc::PreferencesParts="$state/empty" -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache"
    -o Acquire::Languages=none -o APT::Sandbox::User=root)
  [[ -e $state/updated ]] || apt-get "${options[@]}" update
  touch "$state/updated"
  cd "$target"
  apt-get "${options[@]}" download "$@"
  local deb
  for deb in *.deb; do
    dpkg-deb -x "$deb" .
    rm "$deb"
  done
  cd "$folder"
}

compose() {
  unpack trixie "$folder/cli" docker-compose docker-buildx
  mv "$folder/cli/usr/libexec/docker/cli-plugins" "$folder/cli-plugins"
  say Compose
}

# What builds need of the host is its CA bundle; the default bridge network does the rest.
python_image() {
  # shellcheck disable=SC2016 # $1 is mmdebstrap's
  mmdebstrap "${slim[@]}" \
    --include=ca-certificates,python3,python3-venv,python3-pip,libcurl4t64,libssl3t64,netbase,tzdata,wget \
    --customize-hook='cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"' \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; ln -sf python3 "$1/usr/bin/python"' \
    trixie - "deb [signed-by=$keyring] $mirror trixie main" 2>"$folder/python.log" |
    docker import -c 'ENV LANG=C.UTF-8' -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
      -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' -c 'CMD ["python3"]' - standin-python >/dev/null
  local name version
  name=$(official python)
  version=$(docker run --rm --network none standin-python python -c 'import sys; print("{}.{}".format(*sys.version_info))')
  [[ $name == "python:$version-slim" ]] || { echo "$name is named, Debian's Python is $version"; exit 1; }
  docker tag standin-python "$name"
  say "$name"
}

# An nginx that follows names (1.27.3 and later) needs the libraries of its own, newer suite.
nginx_root() {
  mmdebstrap "${slim[@]}" --include=nginx,wget,ca-certificates \
    forky - "deb [signed-by=$keyring] $mirror forky main" 2>"$folder/nginx.log" |
    docker import - standin-nginx-root >/dev/null
  say nginx
}

# official REPOSITORY: with the tag that docker-compose.yml names
official() {
  sed -nE "s,^ +image: ($1:[^ ]+).*,\1,p" "$compose_file" | sort -u | grep .
}

# image REPOSITORY CONTEXT
image() {
  local name
  name=$(official "$1")
  DOCKER_BUILDKIT=0 docker build -q -t "$name" "$folder/$2" >/dev/null
  say "$name"
}

mkdir -p "$folder"
cd "$folder"
for name in mongo nginx prometheus exporter; do cp -r "$here/$name" "$folder/$name"; done
nginx_root &
root_of_nginx=$!
compose
unpack forky "$folder/servers" prometheus prometheus-nginx-exporter
cp "$folder/servers/usr/bin/prometheus" "$folder/prometheus/"
cp "$folder/servers/usr/bin/prometheus-nginx-exporter" "$folder/exporter/"
cp -L "$mongod" "$folder/mongo/mongod"
python_image
image mongo mongo
image prom/prometheus prometheus
image nginx/nginx-prometheus-exporter exporter
wait "$root_of_nginx"
image nginx nginx
