"""What the scripts need of a system: little, and they say so. Other systems are shown by a PATH without their tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))
NOT_ON_MACOS = ("timeout", "flock", "sha256sum", "ip", "setsid", "realpath", "tac", "nproc", "getent")
NOT_OF_BSD = re.compile(
    r"sed (-u|--|-i )|sed .*[a-z]\}'|grep (--\w|-P)|readlink -f|date (-d|--)|mktemp --|\bxargs -r|stat (-c|--)"
)
Path_ = Callable[..., str]
MakeVenv = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path_:
    """Makes a PATH that has what this one has, but for some programs, with others in their places."""

    def make(*missing: str, **others: str) -> str:
        folder = tmp_path / "path"
        folder.mkdir()
        for directory in os.environ["PATH"].split(":"):
            for program in Path(directory).glob("*"):
                if program.name not in missing and not (folder / program.name).is_symlink():
                    (folder / program.name).symlink_to(program)
        for name, script in others.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return str(folder)

    return make


def run(script: str, *arguments: str, stdin: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    bash = shutil.which("bash") or "bash"
    command = [bash, str(ROOT / "scripts" / script), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, stdin=stdin, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_nothing_is_used_that_other_systems_lack(script: Path) -> None:
    code = "\n".join(line for line in script.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert NOT_OF_BSD.search(code) is None
    commands = re.findall(r"(?:^|[|&;(]|then|else|do|!|exec) *([a-z0-9]+)\b(?!\()", code, re.MULTILINE)
    assert not set(NOT_ON_MACOS) & set(commands)


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.name != "lib.sh"], ids=lambda path: path.name)
def test_an_old_shell_gets_as_far_as_being_told(script: Path, tmp_path: Path) -> None:
    """There is no such shell here: the version is pretended, and what comes before is compared with what it knows."""
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    if script.name == "runbook.sh":  # what is sourced stands before
        lines = lines[lines.index("fi") + 1 :]
    assert lines[:2] == ["set -euo pipefail", 'source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"']
    for each in (script, ROOT / "scripts/lib.sh"):
        shutil.copy(each, tmp_path)
    lib = tmp_path / "lib.sh"
    before, _, after = lib.read_text().partition("if ((BASH_VERSINFO")
    assert all(line.startswith("#") or not line for line in before.splitlines())
    lib.write_text(f"VERSION=(3 2 57)\nif ((BASH_VERSINFO{after}".replace("BASH_VERSINFO", "VERSION"))
    told = subprocess.run(["bash", str(tmp_path / script.name)], capture_output=True, text=True, timeout=10)
    assert (told.returncode, told.stdout) == (1, "")
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"{script.name}: bash 4.4 or later is needed")


def test_local_processes_are_for_linux(path: Path_, tmp_path: Path) -> None:
    told = run("up.sh", "--native", PATH=path(uname="echo Darwin"), SLUICE_HOME=str(tmp_path / "home"))
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == "up.sh: local processes need Linux; elsewhere Docker with Compose 2 runs all this\n"
    assert not (tmp_path / "home").exists()


def test_elsewhere_there_is_nothing_of_that_kind_to_stop(path: Path_, tmp_path: Path) -> None:
    told = run("down.sh", PATH=path(*NOT_ON_MACOS, uname="echo Darwin"), SLUICE_HOME=str(tmp_path), SLUICE_RUN="native")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a:b", "a\\b", "[a]", "a*", "a #b", "a ;b", "a'", "a "])
def test_a_folder_that_servers_cannot_name_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    told = run("up.sh", "--native", "-d", SLUICE_HOME=str(tmp_path / name))
    assert (told.returncode, told.stdout, list(tmp_path.iterdir())) == (1, "", [])
    (line,) = told.stderr.splitlines()
    assert line.startswith("up.sh: SLUICE_HOME=")
    assert ": allowed is a path without " in line


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_another_user_is_left_as_it_is(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    told = run("up.sh", "--native", "-d", SLUICE_HOME=str(tmp_path))
    assert (told.returncode, told.stdout, list(tmp_path.iterdir())) == (1, "", [])
    (line,) = told.stderr.splitlines()
    assert line.startswith(f"up.sh: SLUICE_HOME={tmp_path} belongs to another user")


def test_a_folder_that_cannot_be_made_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("file", "File exists"), ("file/home", "Not a directory")):
        told = run("up.sh", "--native", "-d", SLUICE_HOME=f"{tmp_path}/{name}", LC_ALL="C")
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr == f"up.sh: SLUICE_HOME={tmp_path}/{name} can't be used: {why}\n"


@pytest.mark.parametrize(
    ("script", "arguments", "line"),
    [
        ("backup.sh", ["{}/none/a"], "{}/none/a can't be written"),
        ("backup.sh", ["{}"], "{} is a folder"),
        ("restore.sh", ["--yes", "{}/none"], "{}/none can't be read"),
        ("restore.sh", ["--yes", "{}"], "{} is a folder"),
        ("restore.sh", [str(ROOT / "README.md")], "nothing was changed; where nobody answers: --yes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, script: str, arguments: list[str], line: str
) -> None:
    told = run(script, *(each.format(tmp_path) for each in arguments), stdin=subprocess.DEVNULL)
    assert (told.returncode, told.stdout, told.stderr) == (1, "", f"{script}: {line.format(tmp_path)}\n")


def test_environments_are_made_without_the_tools_that_macos_lacks(path: Path_, tmp_path: Path) -> None:
    lock = tmp_path / "empty.lock"
    lock.touch()
    script = f'source "{ROOT}/scripts/lib.sh"; make_venv "$SLUICE_HOME/venv" "{lock}"'
    environment = {**os.environ, "PATH": path(*NOT_ON_MACOS), "SLUICE_HOME": str(tmp_path / "home")}
    for said in (True, False):  # the second time it's there
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=100)
        assert (done.returncode, "installing" in done.stdout) == (0, said), done.stderr
    assert (tmp_path / "home/venv/bin/python").exists()


@pytest.fixture
def make_venv(tmp_path: Path) -> MakeVenv:
    """Makes the environment `tmp_path/venv` with what this lock file says."""

    def make(lock: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "lock").write_text(lock)
        script = f'source "{ROOT}/scripts/lib.sh"; make_venv "$SLUICE_HOME/venv" "{tmp_path}/lock"'
        environment = {**os.environ, "SLUICE_HOME": str(tmp_path)}
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=100)

    return make


def test_what_runs_on_an_environment_goes_on_when_a_lock_changes(tmp_path: Path, make_venv: MakeVenv) -> None:
    venv = tmp_path / "venv"
    assert make_venv("# first\n").returncode == 0
    first = venv.resolve()
    code = "print(flush=True); input(); import pip; print(pip.__file__)"
    with subprocess.Popen(
        [first / "bin/python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        failed = make_venv("--no-index\nnothing-there==1 --hash=sha256:" + "0" * 64)
        assert failed.returncode == 1
        assert "the Python packages can't be installed" in failed.stderr
        assert venv.resolve() == first
        for lock in ("# second\n", "# second\n"):
            assert make_venv(lock).returncode == 0
            second = venv.resolve()
            assert second not in (first, venv)
        said, _ = worker.communicate("\n", timeout=20)
    assert said.startswith(f"{first}/")
    assert worker.returncode == 0
    assert make_venv("# second\n").returncode == 0
    assert [path for path in (tmp_path / "venv.d").iterdir() if path.is_dir()] == [second]


def test_an_environment_of_before_is_used_until_a_lock_changes(tmp_path: Path, make_venv: MakeVenv) -> None:
    venv = tmp_path / "venv"
    assert make_venv("# first\n").returncode == 0
    made = venv.resolve()
    venv.unlink()
    made.rename(venv)
    assert "installing" not in make_venv("# first\n").stdout
    assert not venv.is_symlink()
    assert make_venv("# second\n").returncode == 0
    assert venv.is_symlink()
    assert [path for path in (tmp_path / "venv.d").iterdir() if path.is_dir()] == [venv.resolve()]


def test_an_engine_that_does_not_answer_is_given_up(path: Path_, tmp_path: Path) -> None:
    docker = f'[ "$1" = compose ] && exit; echo $$ >"{tmp_path}/pid"; exec sleep 60'
    script = f'source "{ROOT}/scripts/lib.sh"; within 1 docker version || echo no'
    environment = {**os.environ, "PATH": path(*NOT_ON_MACOS, docker=docker)}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=20)
    assert done.stdout == "no\n"
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_containers_are_stopped_although_compose_cannot_read_env(path: Path_, tmp_path: Path) -> None:
    docker = f"""
    echo "$*" >>{tmp_path}/asked
    case "$*" in
      "compose --env-file /dev/null ps"*) echo 4711 ;;
      "compose ps"*) echo "failed to read .env: unexpected character" >&2; exit 1 ;;
    esac"""
    told = run("down.sh", PATH=path(docker=docker), SLUICE_HOME=str(tmp_path / "none"), SLUICE_RUN="")
    assert told.returncode == 0, told.stderr
    assert told.stderr == "==> failed to read .env: unexpected character: going on without .env\n"
    assert "compose --env-file /dev/null down --remove-orphans" in (tmp_path / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "example.org"}, "localhost,127.0.0.1,::1,example.org"),
        ({"NO_PROXY": "example.org"}, "localhost,127.0.0.1,::1,example.org"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_own_addresses_are_excepted_from_proxies(given: dict[str, str], expected: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    script = f'source "{ROOT}/scripts/lib.sh"; echo "${{no_proxy:-}}"'
    done = subprocess.run(["bash", "-c", script], env=kept | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_text_is_checked_out_with_the_line_ends_of_linux() -> None:
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    right = re.compile(r"i/(lf|none) +w/(lf|none|) *attr/text=auto eol=lf|i/-text .*attr/-text")
    assert [line for line in listed.splitlines() if not right.match(line)] == []
