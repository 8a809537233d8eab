"""Where the time of `GET /users/{id}` goes: samples of the worker under load, by the code that they were in."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from bench.plan import TARGET_LEVEL, Plan
from bench.results import Workload
from bench.servers import served
from bench.sides import SLUICE
from bench.stacks import attribute
from bench.web import write_ids, wrk

SAMPLES_PER_SECOND = 400


def profile(plan: Plan, url: str, folder: Path) -> Workload:
    """Raises `RuntimeError` where py-spy may not look into processes."""
    workload = Workload(
        [
            f"py-spy, {SAMPLES_PER_SECOND} samples per second of Sluice's worker under wrk with {TARGET_LEVEL}"
            " connections (point read, directly). A sample counts for the innermost frame's package; compiled code"
            " counts for the Python code that called it (`transport.write` for uvicorn).",
        ]
    )
    with served([SLUICE], url, folder) as [server]:
        ids = write_ids(url, [SLUICE], folder)
        seconds = max(2, int(2 * plan.target_seconds))
        raw = folder / "profile.txt"
        spy = subprocess.Popen(
            [
                _py_spy(), "record", "--pid", str(server.worker.pid), "--duration", str(seconds), "--full-filenames",
                "--rate", str(SAMPLES_PER_SECOND), "--format", "raw", "--output", str(raw), "--nonblocking",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        time.sleep(0.3)
        rate = wrk(server.url("direct"), "read", TARGET_LEVEL, seconds, ids)["rate"]
        _, errors = spy.communicate(timeout=60)
    if spy.returncode != 0 or not raw.exists():
        raise RuntimeError(f"py-spy: {errors.strip()[-500:]}")
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        part, function = attribute(stack)
        parts[part] += int(count)
        functions[function] += int(count)
    total = parts.total()
    microseconds = 1e6 / rate
    for part, samples in parts.most_common():
        share = samples / total
        workload.row(part=part).rounds.append({"share": share, "microseconds": share * microseconds})
    for function, samples in functions.most_common(15):
        workload.row(function=function).rounds.append({"share": samples / total})
    return workload


def _py_spy() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise RuntimeError("py-spy is not installed")
    return found
