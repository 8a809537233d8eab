"""What the native stack finds in its way: folders, ports and processes of others, a link that leads nowhere."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from stack import ports, processes, supervise
from stack.files import replace as write_file
from stack.home import STACK, Home, StackError
from stack.layout import Layout, Port
from stack.mongod import find_mongod
from stack.ports import check_ports, refuse_taken
from stack.processes import end, of_stack
from stack.rotate import rotate
from stack.stop import refuse_others

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout.on_free_ports(tmp_path)
    yield layout
    if layout.shared.is_symlink() or layout.shared.is_file():
        layout.shared.unlink()
    shutil.rmtree(layout.shared, ignore_errors=True)


def another_users(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)


def open_to_others(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def link_elsewhere(folder: Path) -> None:
    folder.symlink_to("/tmp")  # noqa: S108 nothing is written


def link_to_nothing(folder: Path) -> None:
    folder.symlink_to("/nowhere")


@pytest.mark.parametrize("make", [another_users, open_to_others, link_elsewhere, link_to_nothing, Path.touch])
def test_shared_memory_that_others_may_change_is_refused(layout: Layout, make: Callable[[Path], None]) -> None:
    if make is another_users and os.getuid() != 0:
        pytest.skip("only root can make another user's folder")
    make(layout.shared)
    with pytest.raises(StackError, match=f"^{layout.shared}: allowed is a folder that this user owns and nobody else"):
        layout.check_shared()


def test_other_ports_would_have_other_data(layout: Layout) -> None:
    layout.check_data()
    for port in layout.mongo:
        (layout.home / "data" / str(port.number)).mkdir(parents=True)
    layout.check_data()
    first, second, third = (replace(port, number=port.number + 10) for port in layout.mongo)
    moved = replace(layout, mongo=(first, second, third))
    with pytest.raises(StackError, match=r"^SLUICE_MONGO_PORT=\d+: the data in .* allowed is that one"):
        moved.check_data()


def test_shared_memory_of_our_own_is_used_again(layout: Layout) -> None:
    layout.check_shared()
    layout.make_shared()
    layout.make_shared()
    assert layout.shared.stat().st_mode & 0o777 == 0o700


def test_a_link_to_a_mongod_that_is_gone_is_replaced(tmp_path: Path) -> None:
    mongod = find_mongod()
    (tmp_path / "path").mkdir()
    (tmp_path / "path/mongod").symlink_to(mongod)
    target = tmp_path / "bin/mongod"
    target.parent.mkdir()
    target.symlink_to(tmp_path / "gone")
    command = [sys.executable, "-m", "stack.install", "--mongod", str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}/path:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.resolve() == mongod.resolve()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs that belong to the stack of `tmp_path`, each once it has said that it is ready."""
    running: list[subprocess.Popen[str]] = []

    def start(script: str, name: str = "bash") -> subprocess.Popen[str]:
        command = [
            "bash",
            "-c",
            'exec -a "$0" bash -c "$1"',
            name,
            f"{script}; echo ready; while :; do sleep 0.1; done",
        ]
        environment = {**os.environ, STACK: str(tmp_path)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def down(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"SLUICE_HOME": str(home), "SLUICE_RUN": "native"}
    command = [str(ROOT / "scripts/down.sh"), *arguments]
    return subprocess.run(
        command, env=os.environ | settings | environment, capture_output=True, text=True, timeout=60, cwd=home
    )


def test_down_waits_for_what_takes_its_time(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    slow = started("trap 'sleep 1; exit' TERM")
    done = down(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stopped" in done.stdout
    assert slow.poll() is not None
    assert "nothing is running" in down(tmp_path).stdout


def test_what_ignores_being_asked_is_killed(tmp_path: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    started("trap '' TERM")
    assert end(of_stack(tmp_path), 0.3) == []
    until(lambda: of_stack(tmp_path) == [])  # although nobody has asked for its exit status yet


def test_down_needs_neither_settings_nor_packages(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to("/nowhere/python")
    server = started(":")
    done = down(tmp_path, SLUICE_PORT="http", SLUICE_MONGO_PORT="-1", MAX_POOL_SIZE="x")
    assert (done.returncode, done.stderr) == (0, "")
    assert server.poll() is not None


def test_a_folder_that_is_called_as_the_package_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/__init__.py").write_text("raise SystemExit(9)")
    done = down(tmp_path)  # run there
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is running" in done.stdout


def test_purge_deletes_what_a_stack_left_and_nobody_elses(tmp_path: Path) -> None:
    for name in ("data", "logs"):
        (tmp_path / name).mkdir()
    refused = down(tmp_path, "--purge")
    line = f"down: SLUICE_HOME={tmp_path}: allowed is a folder that up.sh made; nothing was deleted\n"
    assert (refused.returncode, refused.stderr) == (1, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "logs"]
    (tmp_path / "supervisord.conf").touch()
    assert down(tmp_path, "--purge").returncode == down(tmp_path, "--purge").returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", ["home", "./home/", "link", "other/../home"])
def test_down_finds_an_up_that_was_given_the_folder_in_another_form(tmp_path: Path, typed: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("home")
    (tmp_path / "up.sh").write_text("echo ready; sleep 600 >/dev/null & wait\n")
    others = {"SLUICE_HOME": str(tmp_path / "other")}
    mine, anothers = (
        subprocess.Popen(
            ["bash", "./up.sh"], env=os.environ | home, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )
        for home in ({"SLUICE_HOME": typed}, others)
    )  # fmt: skip
    try:
        for each in (mine, anothers):
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        done = down(tmp_path / "home")
        assert f"stopping up.sh (process {mine.pid})" in done.stdout
        assert mine.wait(5) == -signal.SIGTERM
        assert anothers.poll() is None
    finally:
        for each in (mine, anothers):
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.communicate()


def test_a_file_keeps_what_it_had_where_there_is_no_room_for_more(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    write_file(path, "old", 0o600)
    code = "import sys, pathlib, stack.files; stack.files.replace(pathlib.Path(sys.argv[1]), 'new' * 9999)"
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 4; exec "$@"', "limited", sys.executable, "-c", code, str(path)]
    done = subprocess.run(limited, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_manager_that_says_nothing_is_not_taken_for_dead(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "ANSWER_SECONDS", 0.2)
    layout.make_shared()
    assert not supervise.Supervisor(layout).alive
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(layout.socket))
        silent.listen()
        with pytest.raises(StackError, match="the process manager has said nothing for"):
            _ = supervise.Supervisor(layout).alive


def test_ctrl_c_while_up_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "pymongo.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    paths = f"{tmp_path}:{ROOT}:{ROOT}/api"
    environment = {**os.environ, "PYTHONPATH": paths, "SLUICE_HOME": str(tmp_path)}
    up = [sys.executable, "-m", "stack.up", "--detach"]
    done = subprocess.run(up, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    "command",
    [
        ["python", "-c", "{}/supervisord.conf"],
        ["mongod", "--dbpath", "{}/data"],
        ["nginx: master process x -p {}/nginx -c y"],
    ],
    ids=["supervisord", "mongod", "nginx"],
)
def test_what_another_user_started_is_named(tmp_path: Path, command: list[str]) -> None:
    words = [word.format(tmp_path) for word in command]
    process = subprocess.Popen(
        ["bash", "-c", 'exec -a "$0" bash -c "echo; read" "$@"', *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        line = rf"^root started this stack, of which \w+ \(process {process.pid}\) runs: only root can stop it$"
        with nobody(), pytest.raises(StackError, match=line):
            refuse_others(Home(tmp_path))
        refuse_others(Home(tmp_path))
    finally:
        process.communicate(b"\n")


@pytest.mark.parametrize("home", ["", "second"], ids=["the folder above", "a folder below"])
@pytest.mark.parametrize(
    "command",
    [
        ["nginx: master process x -p {}/first/nginx -c y"],
        ["nginx: worker process"],
        ["mongod", "--dbpath", "{}/first/data"],
        ["prometheus", "--config.file={}/first/prometheus/prometheus.yml"],
    ],
    ids=lambda command: command[0][:13],
)
def test_a_stack_in_a_folder_above_or_below_is_another(
    tmp_path: Path, home: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its user, and although it has files open below the other's folder."""
    log = tmp_path / "first" / "logs" / "nginx-access.log"
    log.parent.mkdir(parents=True)
    words = [word.format(tmp_path) for word in command]
    with log.open("wb") as opened:
        process = subprocess.Popen(
            ["bash", "-c", 'exec -a "$0" bash -c "echo; read" "$@"', *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[opened.fileno()],
        )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        for user in (os.geteuid(), os.geteuid() + 1):
            monkeypatch.setattr(processes.os, "geteuid", lambda user=user: user)  # type: ignore[attr-defined]
            assert process.pid not in {each.pid for each in of_stack(tmp_path / "first" / home if home else tmp_path)}
        assert process.pid in {each.pid for each in of_stack(tmp_path / "first")}
    finally:
        process.communicate(b"\n")


@contextmanager
def listening(family: socket.AddressFamily, address: str) -> Iterator[Port]:
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        try:
            listener.bind((address, 0))
        except OSError:
            pytest.skip(f"there is no {address} here")
        listener.listen()
        yield Port("SLUICE_PORT", listener.getsockname()[1])


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0"),  # noqa: S104 that is what is tested
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
)
def test_a_port_is_taken_whatever_address_it_is_taken_on(family: socket.AddressFamily, address: str) -> None:
    with listening(family, address) as port:
        line = rf"^port {port.number} for nginx is taken by \S+ \(process {os.getpid()}\): end that, or .* SLUICE_PORT$"
        with pytest.raises(StackError, match=line):
            refuse_taken({"nginx": port}, lambda _: False)
        refuse_taken({"nginx": port}, lambda pid: pid == os.getpid())
    refuse_taken({"nginx": port}, lambda _: False)


def test_a_port_of_another_address_matters_to_who_listens_on_all() -> None:
    with listening(socket.AF_INET, "127.0.0.2") as port:
        refuse_taken({"nginx": port}, lambda _: False)
        with pytest.raises(StackError, match="is taken"):
            refuse_taken({"nginx": port}, lambda _: False, everywhere=frozenset({"nginx"}))


def test_a_port_has_one_use(layout: Layout) -> None:
    check_ports(layout, opens_to_others=False)
    number = layout.http.number
    twice = replace(layout, prometheus=Port("SLUICE_PROMETHEUS_PORT", number))
    line = f"^SLUICE_PROMETHEUS_PORT={number}: allowed is a port of its own, SLUICE_PORT has this one$"
    with pytest.raises(StackError, match=line):
        check_ports(twice, opens_to_others=False)


def test_a_port_that_may_not_be_opened_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ports.socket, "socket", Refusing)  # type: ignore[attr-defined]
    line = "^port 80 for nginx may not be opened by this user: choose one from 1024 with SLUICE_PORT$"
    with pytest.raises(StackError, match=line):
        refuse_taken({"nginx": Port("SLUICE_PORT", 80)}, lambda _: False)


WRITER = """
import os, sys, time
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while os.getppid() == int(sys.argv[2]) and number < 200_000:
    os.write(log, b"%d\\n" % number)
    number += 1
    time.sleep(0.00005)
"""


def test_a_log_is_rotated_under_its_writers_hands(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(log), str(os.getpid())])
    try:
        for _ in range(3):
            until(lambda: log.exists() and log.stat().st_size > 20_000)
            rotate(log)
    finally:
        writer.kill()
        writer.wait()
    parts = [tmp_path / name for name in ("api.log.3", "api.log.2", "api.log.1", "api.log")]
    numbers = [int(line) for part in parts for line in part.read_text().splitlines()]
    assert sorted(set(numbers)) == numbers  # none twice, none torn
    assert numbers[-1] - len(numbers) < 50  # hardly any lost
    rotate(log, kept=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2", "api.log.3"]
    assert int((tmp_path / "api.log.3").read_text().split()[0]) > 0  # the oldest has gone


def test_the_rotating_program_keeps_every_log_small(tmp_path: Path) -> None:
    for name in ("api.log", "mongod-1.log", "supervisord.log", "nginx.out"):
        (tmp_path / name).write_bytes(b"x" * 2000)
    command = [sys.executable, str(ROOT / "stack/rotate.py"), str(tmp_path), "1000"]
    with subprocess.Popen(command) as rotating:
        try:
            until(lambda: (tmp_path / "api.log.1").exists() and (tmp_path / "mongod-1.log").stat().st_size == 0)
        finally:
            rotating.terminate()
    assert (tmp_path / "supervisord.log").stat().st_size == (tmp_path / "nginx.out").stat().st_size == 2000


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
