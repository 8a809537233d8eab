# shellcheck shell=bash
# What the scripts share: where the repository is, and the virtual environments.

# This and what runs before it is for every shell: macOS has one of 2007.
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "${0##*/}: bash 4.4 or later is needed, this is $BASH_VERSION (on macOS: brew install bash)" >&2
  exit 1
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SLUICE_HOME=${SLUICE_HOME:-$root/.sluice}
[[ $SLUICE_HOME == /* ]] || SLUICE_HOME=$PWD/$SLUICE_HOME
export SLUICE_HOME

# What listens on this machine is asked directly, whatever proxy there is for the rest.
if [[ ${no_proxy:-${NO_PROXY:-}} != "*" ]]; then
  export no_proxy=localhost,127.0.0.1,::1${no_proxy:+,$no_proxy}${NO_PROXY:+,$NO_PROXY}
  export NO_PROXY=$no_proxy
fi

# fail MESSAGE [STATUS]: say why and stop
fail() {
  echo "${0##*/}: $1" >&2
  exit "${2:-1}"
}

# misuse MESSAGE: for a wrong command line
misuse() {
  fail "$1; see --help" 2
}

# usage: print the comment at the top of the script
usage() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$0"
}

# python_path: let Python find the repository's packages; and not what is called alike where a script is typed
python_path() {
  export PYTHONSAFEPATH=1 PYTHONPATH=$root:$root/api
}

# compose ARGUMENT...: Docker Compose on this repository's files, or on those that COMPOSE_FILE names
compose() {
  (cd "$root" && docker compose "$@")
}

# container_logs ARGUMENT...: the lines as they were written; some versions put a terminal's code before each
container_logs() {
  local interactive=()
  if awk -W interactive 'BEGIN {}' >/dev/null 2>&1; then interactive=(-W interactive); fi # mawk waits for whole buffers
  compose logs --no-color --no-log-prefix "$@" | awk "${interactive[@]}" '{ sub(/^\033\[2K/, ""); print; fflush() }'
}

# engine_answers: is there a Docker engine with Compose, and is it wanted (SLUICE_RUN is not native)
engine_answers() {
  [[ ${SLUICE_RUN:-} != native ]] && command -v docker >/dev/null &&
    docker compose version >/dev/null 2>&1 && within 10 docker version >/dev/null 2>&1 && name_project
}

# within SECONDS COMMAND...: end it if it takes longer (macOS has no timeout)
within() {
  "${@:2}" &
  local command=$! tenths
  for ((tenths = 0; tenths < $1 * 10; tenths++)); do
    kill -0 "$command" 2>/dev/null || break
    sleep 0.1
  done
  kill "$command" 2>/dev/null || true
  wait "$command"
}

# has_linux: local processes are for Linux: its packages, and /proc
has_linux() {
  [[ $(uname) == Linux ]]
}

# name_project: what this folder's stack in containers is called, where neither the environment nor .env says so. As
# Compose would, after the folder, unless another folder's stack has that name; then a number makes it another one.
# Until that rule came, every stack was called sluice: its data are found.
name_project() {
  [[ -z ${COMPOSE_PROJECT_NAME:-} ]] || return 0
  ! grep -Eqs '^[[:blank:]]*(export[[:blank:]]+)?COMPOSE_PROJECT_NAME[[:blank:]]*[=:][[:blank:]]*[^[:blank:]]' \
    "$root/.env" || return 0
  local name marked
  name=$(basename "$root" | tr '[:upper:]' '[:lower:]' | tr -cd 'a-z0-9_-' | sed 's/^[_-]*//')
  name=${name:-sluice}
  folders_name=$name # what Compose would take
  marked=$(docker volume ls --quiet --filter "label=sluice.folder=$root" | head -n 1)
  if [[ -n $marked ]]; then
    name=${marked%_folder}
  elif ! belongs "$name" && { belongs sluice || { ! has_data "$name" && has_data sluice && ! taken sluice; }; }; then
    name=sluice
  elif taken "$name"; then
    name=$name-$(printf %s "$root" | cksum | cut -d ' ' -f 1)
  fi
  export COMPOSE_PROJECT_NAME=$name
}

# mark_project: let others see, even when it is down, whose stack this is
mark_project() {
  [[ -n ${folders_name:-} ]] || return 0
  docker volume rm --force "${COMPOSE_PROJECT_NAME}_folder" >/dev/null # it may name a folder that is gone
  docker volume create --label "sluice.folder=$root" "${COMPOSE_PROJECT_NAME}_folder" >/dev/null
  [[ $COMPOSE_PROJECT_NAME == "$folders_name" ]] ||
    echo "==> the project is $COMPOSE_PROJECT_NAME; plain docker compose has to be told, in .env" >&2
}

# unmark_project: once its data are gone
unmark_project() {
  [[ -z ${folders_name:-} ]] || docker volume rm --force "${COMPOSE_PROJECT_NAME}_folder" >/dev/null
}

# folders PROJECT: those that its containers were started from, and the one that is marked
folders() {
  docker ps --all --filter "label=com.docker.compose.project=$1" \
    --format '{{.Label "com.docker.compose.project.working_dir"}}'
  docker volume inspect --format '{{index .Labels "sluice.folder"}}' "$1_folder" 2>/dev/null || true
}

# belongs PROJECT: was it started from this folder
belongs() {
  local folder
  while read -r folder; do
    [[ ! $folder -ef $root ]] || return 0
  done < <(folders "$1")
  return 1
}

# taken PROJECT: was it started from another folder, which is still there
taken() {
  local folder
  while read -r folder; do
    if [[ -d $folder && ! $folder -ef $root ]]; then return 0; fi
  done < <(folders "$1")
  return 1
}

# has_data PROJECT
has_data() {
  docker volume inspect "$1_mongo1" >/dev/null 2>&1
}

# check_path NAME PATH: refuse what the configuration of some server can't hold
check_path() {
  case $2 in
    *[\"\\:*?[]* | *\]* | *[[:cntrl:]]* | *" #"* | *" ;"* | *[[:space:]\'])
      fail "$1=${2@Q}: allowed is a path without \" \\ : * ? [ ], line ends, ' #' and ' ;', and with no blank or ' at its end"
      ;;
  esac
}

# containers_run: does the stack run in containers
containers_run() {
  engine_answers && [[ -n $(compose ps --quiet --status running api 2>/dev/null) ]]
}

# find_version VERSION: a Python of this minor version, on PATH or pyenv's, that can make virtual environments
find_version() {
  local name pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions
  for name in "python$1" "$pyenv/$1".[0-9]/bin/python "$pyenv/$1".[0-9][0-9]/bin/python; do
    if "$name" -c 'import ensurepip, sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$1" 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  return 1
}

# image_python: the version of Python that the service's image has
image_python() {
  sed -n 's/^FROM python:\(3\.[0-9]*\)-slim AS python$/\1/p' "$root/api/Dockerfile"
}

# find_python: the name of a Python that is new enough and can make virtual environments
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  return 1
}

# install_python: Debian's, where there is none to use
install_python() {
  local wanted="Python 3.11 or later with its venv module"
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    fail "$wanted is missing. As root: apt-get install python3 python3-venv"
  fi
  echo "==> installing python3, python3-venv (apt)" >&2
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 python3-venv >&2
  find_python || fail "$wanted is missing, and this system's packages have none"
}

# lock_9 HOW: lock what is open as 9, for as long as that is (flock and sha256sum aren't everywhere, Python is)
lock_9() {
  "$python" -c "from fcntl import *; flock(9, $1)" 2>/dev/null
}

# make_venv LINK LOCK...: a virtual environment with exactly what the lock files name. When they change, another one is
# made beside it (LINK.d/…), and once that is whole, LINK leads there: what runs on the old one goes on. Those that
# nothing runs on any more are deleted. `base_python` may name the Python to make it with.
make_venv() (
  local venv=$1
  shift
  has_linux || fail "local processes need Linux; elsewhere Docker with Compose 2 runs all this"
  check_path "the repository" "$root"
  check_path SLUICE_HOME "$SLUICE_HOME"
  local python=$venv/bin/python wanted error folder
  "$python" -c '' 2>/dev/null || python=${base_python:-$(find_python || install_python)}
  error=$(mkdir -p "$SLUICE_HOME" 2>&1) || fail "SLUICE_HOME=$SLUICE_HOME can't be used: ${error##*: }"
  [[ -O $SLUICE_HOME ]] ||
    fail "SLUICE_HOME=$SLUICE_HOME belongs to another user, who couldn't use what this one leaves there: choose another folder"
  exec 9<"$SLUICE_HOME" # up.py locks it, too
  if ! lock_9 LOCK_EX+LOCK_NB; then
    echo "==> waiting for another script that is at work in $SLUICE_HOME"
    lock_9 LOCK_EX
  fi
  wanted=$("$python" -c 'import hashlib, sys
print(hashlib.sha256(b"".join(open(lock, "rb").read() for lock in sys.argv[1:])).hexdigest(), "", "-")' "$@")
  if [[ $python == "$venv/bin/python" && $(cat "$venv/locks.sha256" 2>/dev/null) == "$wanted" ]]; then
    delete_unused "$venv"
    exit
  fi
  python=${base_python:-$(find_python || install_python)}
  # Its own for each Python, too: one that has been replaced is no reason to delete what runs on it.
  folder=$venv.d/$("$python" -c 'import hashlib, sys
print(hashlib.sha256((sys.argv[1] + sys.version).encode()).hexdigest()[:12])' "$wanted")
  if [[ $(cat "$folder/locks.sha256" 2>/dev/null) != "$wanted" ]] || ! "$folder/bin/python" -c '' 2>/dev/null; then
    echo "==> installing Python packages (PyPI) into $folder"
    rm -rf "$folder" # which was never finished
    "$python" -m venv "$folder"
    local requirements=()
    local lock
    for lock in "$@"; do requirements+=(-r "$lock"); done
    "$folder/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes "${requirements[@]}" ||
      fail "the Python packages can't be installed (see above)"
    echo "$wanted" >"$folder/locks.sha256"
  fi
  [[ -L $venv || ! -e $venv ]] || mv "$venv" "$venv.d/before-$$" # made when there were no links
  rm -f "$venv.d/link"
  ln -s "$(basename "$venv").d/$(basename "$folder")" "$venv.d/link"
  mv -T "$venv.d/link" "$venv"
  delete_unused "$venv"
)

# delete_unused LINK: the environments beside it that nothing runs on: by its command, or by what it has loaded
delete_unused() {
  local folder
  for folder in "$1.d"/*/; do
    folder=$(cd -P "$folder" 2>/dev/null && pwd) || continue
    # Not in grep's own command.
    [[ $folder -ef $1 ]] || grep -aqsF -f <(echo "$folder/") /proc/[0-9]*/cmdline /proc/[0-9]*/maps || rm -rf "$folder"
  done
}

# folder_of LINK: the environment itself, so that what is started on it stays on it
folder_of() {
  (cd -P "$1" && pwd)
}

# run_backup ACTION: backup.py on the running stack's database, as the application's user
run_backup() {
  if containers_run; then
    compose exec -T api python /srv/mongo/backup.py "$1" --url-file /secrets/api/mongodb_url
  elif [[ -r $SLUICE_HOME/secrets/mongodb_url ]]; then
    python_path
    "$SLUICE_HOME/venv/bin/python" -m mongo.backup "$1" --url-file "$SLUICE_HOME/secrets/mongodb_url"
  else
    fail "no stack runs; start it with ./scripts/up.sh"
  fi
}
