"""The commands of docs/runbook.md, as an operator would type them.

A remark behind a command says where it may be typed (`# in containers`, `# in production`), or `# may find nothing`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from whole_stack import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"
NOT_EVERYWHERE = ("getenforce", "py-spy")
"""Programs that are run where there are any."""
SIGPIPE = 141
"""The status of who wrote to a `head` that had enough."""


@dataclass(frozen=True)
class Command:
    text: str
    remark: str

    @property
    def may_find_nothing(self) -> bool:
        return "may find nothing" in self.remark

    @property
    def asks_prometheus(self) -> bool:
        return self.text.startswith("ask ")

    def runs(self, where: str) -> bool:
        """Is it for this stack: `native`, `containers` or `production`."""
        program = self.text.split()[0]
        if program in NOT_EVERYWHERE and shutil.which(program) is None:
            return False
        places = {"in containers": ("containers", "production"), "in production": ("production",)}
        return all(where in stacks for place, stacks in places.items() if place in self.remark)


def commands() -> list[Command]:
    """All of them, each once."""
    found: dict[str, Command] = {}
    for block in re.findall(r"^```bash\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            text, _, remark = line.partition("     # ")
            found[text] = Command(text, remark)
    return list(found.values())


def problems(typed: list[Command], environment: Mapping[str, str], **filled: str) -> dict[str, str]:
    """What is wrong with them. `filled`: what stands for PID and the like."""
    with ThreadPoolExecutor(4) as pool:
        outcomes = pool.map(lambda command: _problem(command, environment, filled), typed)
        return {command.text: problem for command, problem in zip(typed, outcomes, strict=True) if problem}


def _problem(command: Command, environment: Mapping[str, str], filled: Mapping[str, str]) -> str | None:
    text = command.text
    for name, value in filled.items():
        text = re.sub(rf"\b{name}\b", value, text)
    with tempfile.NamedTemporaryFile("r") as file:
        typed = f'source scripts/runbook.sh\n{text}\necho "${{PIPESTATUS[@]}}" >{file.name}'
        done = subprocess.run(
            ["bash", "-c", typed], cwd=ROOT, env=dict(environment), capture_output=True, text=True, timeout=120
        )
        first, *others = [int(status) for status in Path(file.name).read_text().split()] or [done.returncode or 1]
    allowed = {0, SIGPIPE} | ({1} if command.may_find_nothing else set())
    if first not in (0, SIGPIPE) or not allowed.issuperset(others):
        return f"status {first} {others}: {done.stderr}"
    if "HTTP status" in done.stderr or "runbook.sh: " in done.stderr:
        return done.stderr
    if not done.stdout and not command.may_find_nothing and not text.startswith("source "):
        return "it says nothing"
    return None
