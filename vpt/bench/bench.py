"""What prompts cost on a machine: each way side by side in one run, as ratios to the plain forward
of the same round.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from vpt.bench.late import time_late
from vpt.bench.processes import measure_memory, time_startup
from vpt.bench.report import BenchReport, Machine
from vpt.bench.steps import Case, Setting, Stage
from vpt.bench.tables import picture
from vpt.errors import VptError
from vpt.files import write_atomically
from vpt.report.progress import progress_bar


def bench(
    setting: Setting,
    *,
    repeats: int = 10,
    images: int = 300,
    memory: bool = True,
    out: Path | None = None,
    progress: bool = True,
) -> BenchReport:
    """Time every case of a setting `repeats` times, interleaved, and count its operations; the
    report, also as bench.json.

    setting: what is measured.
    repeats: rounds, after two that warm up.
    images: examples of the epochs with prompts in the last quarter of the blocks, with and without
        what enters them kept (0: not timed).
    memory: whether the peak of a training step is measured, each in a fresh process.
    out: a folder for bench.json and bench.png.
    progress: whether to show how far it is.

    Raises `VptError` for a setting that cannot be.
    """
    if repeats < 1 or images < 0:
        raise VptError(
            f"Found repeats={repeats}, images={images}; needed are at least 1, and at least 0."
        )
    stage = Stage(setting)
    cases = stage.cases()
    seconds = _rounds(stage, cases, repeats, progress)
    operations = {case.key: stage.operations(case) for case in cases}
    late = None
    if images and stage.backbone.depth >= 4:
        late = time_late(stage, images, max(3, repeats // 3), progress)
    startup = time_startup((repeats + 1) // 2)
    stage.clear()
    peaks = measure_memory(setting, cases, progress) if memory else None
    report = BenchReport(
        machine(setting), setting, repeats, seconds, operations, late, startup, peaks
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "bench.json", json.dumps(report.as_dict(), indent=1).encode())
        write_atomically(out / "bench.png", picture(report))
    return report


def _rounds(
    stage: Stage, cases: Sequence[Case], repeats: int, progress: bool
) -> dict[str, list[float]]:
    """Seconds of every case, round by round."""
    seconds: dict[str, list[float]] = {case.key: [] for case in cases}
    with progress_bar(progress) as bar:
        task = bar.add_task("warming up", total=(repeats + 2) * len(cases))
        for turn in range(-2, repeats):
            for case in cases:
                taken = _timed(stage, case)
                if turn >= 0:
                    seconds[case.key].append(taken)
                bar.update(
                    task, advance=1, description=f"round {turn + 1} of {repeats}: {case.key}"
                )
    return seconds


def _timed(stage: Stage, case: Case) -> float:
    with stage.ready(case) as run:
        stage.wait()
        start = time.perf_counter()
        run()
        stage.wait()
        return time.perf_counter() - start


def machine(setting: Setting) -> Machine:
    """What this was measured on."""
    device = torch.cuda.get_device_name() if setting.device.startswith("cuda") else _processor()
    return Machine(device, os.cpu_count(), torch.get_num_threads(), torch.__version__)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
