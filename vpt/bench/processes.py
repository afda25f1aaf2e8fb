"""What is measured in fresh processes: peak memory, and how long it takes to start."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from vpt.bench.memory import peak_bytes
from vpt.bench.steps import Case, Setting, Stage
from vpt.report.progress import progress_bar

HELP = "import sys; sys.argv = ['vpt', '--help']; from vpt.cli import main; main()"
STARTS = {"torch": "import torch", "torch and vpt": "import torch, vpt", "vpt --help": HELP}
MEASURE = "import sys; from vpt.bench.processes import report_memory; report_memory(sys.argv[1])"


def measure_memory(setting: Setting, cases: Sequence[Case], progress: bool) -> dict[str, int]:
    """Peak bytes of two steps beyond the loaded model, each case in its own process; training
    steps and the plain forward, without those that fail.
    """
    peaks = {}
    with progress_bar(progress) as bar:
        wanted = [case for case in cases if case.training or case.kind == "plain"]
        task = bar.add_task("memory", total=len(wanted))
        for case in wanted:
            given = json.dumps([asdict(setting), asdict(case)])
            child = [sys.executable, "-c", MEASURE, given]
            done = subprocess.run(child, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode == 0:
                peaks[case.key] = int(done.stdout.split()[-1])
            bar.update(task, advance=1, description=f"memory: {case.key}")
    return peaks


def report_memory(given: str) -> None:
    """In a fresh process: write the peak bytes of two steps of a case beyond the loaded model."""
    setting, case = json.loads(given)
    stage = Stage(Setting(**(setting | {"tokens": tuple(setting["tokens"])})))
    with stage.ready(Case(**case)) as run:
        peak = peak_bytes(lambda: [run(), run()], setting["device"])
    sys.stdout.write(f"{peak}\n")


def time_startup(turns: int) -> dict[str, float]:
    """Seconds of fresh processes, the least of some turns: `import torch`, `import torch, vpt`, and
    `vpt --help`.
    """
    seconds = dict.fromkeys(STARTS, float("inf"))
    for _ in range(turns):
        for name, code in STARTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)  # noqa: S603
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds
