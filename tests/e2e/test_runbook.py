"""The runbook's commands work on local processes, and sourcing them does no harm."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import uuid
from pathlib import Path

import pytest
from runbook import commands, problems
from whole_stack import ROOT, Stack, until

SCRIPT = ROOT / "scripts" / "runbook.sh"
STATE = "set +o; shopt; trap; pwd; declare -F; compgen -v"


def typed(text: str, environment: dict[str, str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Type it in a bash that has sourced the commands."""
    return subprocess.run(
        ["bash", "-c", f"source '{SCRIPT}'\n{text}"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_every_command_of_the_runbook_works(stack: Stack) -> None:
    request_id = f"runbook-{uuid.uuid4().hex}"
    assert stack.http.get("/users", params={"limit": 1}, headers={"X-Request-ID": request_id}).status_code == 200
    until(lambda: request_id in typed("log nginx", stack.environment).stdout)  # it writes once a second
    worker = next(iter(stack.wait_for_workers().values()))
    found = [command for command in commands() if command.runs("native")]
    assert len(found) > 60
    assert problems(found, stack.environment, PID=str(worker), REQUEST_ID=request_id) == {}


def test_a_command_that_does_not_work_is_noticed(stack: Stack) -> None:
    some = [command for command in commands() if command.text in ("health", "log api 20", "ask 'sluice_worker_ready'")]
    assert len(some) == 3
    nowhere = stack.environment | {"SLUICE_HOME": str(stack.home / "bin")}
    assert problems(some, nowhere).keys() == {command.text for command in some}


def test_no_command_names_an_address_or_a_folder_of_one_stack() -> None:
    for command in commands():
        assert not re.search(r"localhost|127\.0\.0\.1|\.sluice|:\d{4}", command.text), command.text


def test_sourcing_adds_the_commands_and_changes_nothing_else(stack: Stack) -> None:
    known = re.search(r"\n# +addresses.*?\n#\n", SCRIPT.read_text(), re.DOTALL)
    assert known
    documented = set(re.findall(r"^#   (\w+)", known[0], re.MULTILINE)) | {"health", "targets"}
    for options in ("set +e", "set -eu", "set -o pipefail; shopt -s nullglob; IFS=x; CDPATH=/; cd scripts"):
        text = f"{options}; before=$({STATE}); source '{SCRIPT}'; after=$({STATE})\n"
        text += 'diff <(echo "$before") <(echo "$after")'
        done = subprocess.run(
            ["bash", "-c", text], cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        changes = {line for line in done.stdout.splitlines() if line.startswith(("<", ">"))}
        added = {f"> declare -f {name}" for name in documented} | {"> SLUICE_RUNBOOK", "> before"}
        assert changes == added, options


def test_an_error_is_one_line_and_the_shell_goes_on(stack: Stack, tmp_path: Path) -> None:
    nowhere = stack.environment | {"SLUICE_HOME": str(tmp_path)}
    done = typed("ask up; echo $?\nlog; echo $?\nlog nobody; echo $?", nowhere)
    assert done.stdout.split() == ["1", "1", "1"]
    assert done.stderr == "runbook.sh: no stack is there; start one with ./scripts/up.sh\n" * 3
    wrong = typed("ask; echo $?\nask '('; echo $?\nlog nobody; echo $?\nget /nothing; echo $?", stack.environment)
    assert [line for line in wrong.stdout.splitlines() if line.isdigit()] == ["2", "1", "1", "0"]
    assert "parse error" in wrong.stdout
    said = wrong.stderr.splitlines()
    assert [said[0], *said[2:]] == ["runbook.sh: ask takes one query, in '…'; see --help", "HTTP status 404"]
    assert said[1].startswith(f"runbook.sh: {stack.layout.logs} has no log of 'nobody', but of api ")
    assert f" mongod-{stack.layout.mongo[0].number} " in said[1]
    assert " nginx " in said[1]


def test_what_runs_is_found_where_it_listens_whatever_is_set_now(stack: Stack, tmp_path: Path) -> None:
    now = {name: value for name, value in stack.environment.items() if not name.endswith("_PORT")}
    now |= dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"), "http://127.0.0.1:9")
    now = {name: value for name, value in now.items() if name.lower() != "no_proxy"}
    done = typed("addresses; health", now, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"nginx {stack.url}\nprometheus {stack.prometheus_url}\n")
    health = json.loads(done.stdout[done.stdout.index("{") :])
    assert {member["address"] for member in health["members"]} == set(stack.layout.hosts)
    assert "sluice_worker_ready" in typed("metrics", now, tmp_path).stdout


def test_without_python_answers_are_shown_as_they_are(stack: Stack, tmp_path: Path) -> None:
    for name in ("bash", "curl", "cat", "dirname", "sed", "head"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = typed("stats", stack.environment | {"PATH": str(tmp_path)})
    assert json.loads(done.stdout)["success"]
    assert "\n" not in done.stdout.strip()


def test_a_members_log_is_told_apart(stack: Stack) -> None:
    for number, port in enumerate(stack.layout.mongo, start=1):
        assert (
            f'"port":{port.number}' in typed(f"log mongo{number} | grep 'MongoDB starting'", stack.environment).stdout
        )


def test_older_logs_come_first_and_only_where_everything_is_asked_for(stack: Stack, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for number, name in enumerate(("api.out", "api.log.2", "api.log.1", "api.log", "api-other.log", "mongod-2.log")):
        (logs / name).write_text(f"{number}\n")
    home = stack.environment | {"SLUICE_HOME": str(tmp_path)}
    assert typed("log api", home).stdout.split() == ["0", "1", "2", "3"]
    assert typed("log api 5", home).stdout.split() == ["0", "3"]
    assert typed("log mongo", home).stdout.split() == ["5"]
    assert "no log of 'mongo3'" in typed("log mongo3", home).stderr


def test_a_worker_is_ended_by_its_process_id(stack: Stack) -> None:
    worker = next(iter(stack.wait_for_workers().values()))
    assert str(worker) in typed("workers", stack.environment).stdout.split()
    assert (
        typed(f"inside kill -s {signal.SIGTERM.name.removeprefix('SIG')} {worker}", stack.environment).returncode == 0
    )
    assert worker not in stack.wait_for_workers(without={worker}).values()
