"""What prompts cost on a machine: each way side by side in one run, as ratios to the plain forward
of the same round.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vpt.backbones import FeatureCache, cannot_skip
from vpt.bench.memory import peak_bytes
from vpt.bench.steps import CLASSES, Case, Setting, Stage
from vpt.errors import VptError
from vpt.files import write_atomically
from vpt.model import PromptedModel
from vpt.prompts import DeepTokens
from vpt.readouts import Linear
from vpt.report.pictures import costs
from vpt.report.progress import progress_bar
from vpt.report.tables import cost_rows


def bench(
    setting: Setting,
    *,
    repeats: int = 10,
    images: int = 300,
    memory: bool = True,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Time every case of a setting `repeats` times, interleaved, and count its operations; the
    report, also as bench.json.

    images: examples of the epochs with prompts in the last quarter of the blocks, with and without
        what enters them kept (0: not timed). memory: peak of a training step, each in a fresh
        process. Raises `VptError` for a setting that cannot be.
    """
    if repeats < 1 or images < 0:
        raise VptError(
            f"Found repeats={repeats}, images={images}; needed are at least 1, and at least 0."
        )
    stage = Stage(setting)
    cases = stage.cases()
    report: dict[str, Any] = {
        "machine": machine(setting),
        "setting": asdict(setting),
        "repeats": repeats,
    }
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
    report["seconds"] = seconds
    report["operations"] = {case.key: stage.operations(case) for case in cases}
    if images and stage.backbone.depth >= 4:
        report["late"] = _late(stage, images, max(3, repeats // 3), progress)
    report["import"] = _startup((repeats + 1) // 2)
    stage.made.clear()
    if memory:
        report["memory"] = _memory(setting, cases, progress)
    report["ratios"] = ratios(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "bench.json", json.dumps(report, indent=1).encode())
        write_atomically(out / "bench.png", picture(report))
    return report


def _timed(stage: Stage, case: Case) -> float:
    with stage.ready(case) as run:
        _wait(stage)
        start = time.perf_counter()
        run()
        _wait(stage)
        return time.perf_counter() - start


def _wait(stage: Stage) -> None:
    """Until a GPU has done what it was given."""
    if stage.setting.device.startswith("cuda"):
        torch.cuda.synchronize()


def picture(report: dict[str, Any]) -> bytes:
    """The ratios as bars, a PNG."""
    rows = [
        (name, infer and infer["plain"], train and train["plain"])
        for name, _, infer, train in cost_rows(report)
    ]
    setting, on = report["setting"], report["machine"]
    title = (
        f"{setting['source']}, batch {setting['batch']}, {on['device']}, {on['threads']} threads"
    )
    return costs(rows, title)


def ratios(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per case: its time ÷ the plain forward's (and ÷ insertion's) in the same round: medians with
    95 % intervals; operations ÷ the plain forward's.
    """
    found, seconds, operations = {}, report["seconds"], report["operations"]
    for key, own in seconds.items():
        row: dict[str, Any] = {"plain": interval(own, seconds["plain infer"])}
        row["operations"] = operations[key] / max(1, operations["plain infer"])
        reference = key.replace("ours", "insert")
        if reference != key:
            row["insert"] = interval(own, seconds[reference])
        found[key] = row
    return found


def interval(own: list[float], other: list[float]) -> tuple[float, float, float]:
    """(median of the rounds' ratios, and its 95 % bootstrap interval)."""
    quotients = np.array(own) / np.array(other)
    draws = np.random.default_rng(0).choice(quotients, (2000, len(quotients)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(quotients)), float(low), float(high)


def _late(stage: Stage, images: int, repeats: int, progress: bool) -> dict[str, Any]:
    """Epochs with prompts in the last quarter of the blocks, by turns without and with what enters
    them kept.
    """
    backbone, setting = stage.backbone, stage.setting
    first = backbone.depth - backbone.depth // 4
    data = backbone.inputs.example(images)
    cuts = [slice(i, min(i + setting.batch, images)) for i in range(0, images, setting.batch)]
    batches = [
        tuple(part[cut] for part in data) if isinstance(data, tuple) else data[cut] for cut in cuts
    ]
    labels = torch.arange(images, device=setting.device) % CLASSES
    prompt = DeepTokens.like(backbone, stage.middle, blocks=list(range(first, backbone.depth)))
    model = PromptedModel(backbone, prompt, Linear(backbone.out_features, CLASSES)).train()
    optimizer = torch.optim.AdamW(
        [p for values in model.trained_parameters().values() for p in values], lr=1e-5
    )
    cache = FeatureCache(backbone, first)
    found: dict[str, Any] = {
        "blocks": [first, backbone.depth - 1],
        "tokens": prompt.count,
        "images": images,
        "off": [],
        "on": [],
    }
    reason = cannot_skip(backbone, cache)
    if reason is not None:
        model.attachment.remove()
        return found | {"reason": reason}

    def epoch(kept: FeatureCache | None) -> float:
        backbone.cache = kept
        start = time.perf_counter()
        for x, cut in zip(batches, cuts, strict=True):
            with stage.autocast():
                out = model(x)
            F.cross_entropy(out.float(), labels[cut]).backward()
            optimizer.step()
            optimizer.zero_grad()
        _wait(stage)
        backbone.cache = None
        return time.perf_counter() - start

    with progress_bar(progress) as bar:
        task = bar.add_task("epochs of a late prompt", total=2 * repeats + 1)
        found["first"] = epoch(cache)
        bar.advance(task)
        for _ in range(repeats):
            for name, kept in (("off", None), ("on", cache)):
                found[name].append(epoch(kept))
                bar.advance(task)
    model.attachment.remove()
    found["faster"] = interval(found["off"], found["on"])
    return found


def _memory(setting: Setting, cases: list[Case], progress: bool) -> dict[str, int]:
    """Peak bytes of two steps beyond the loaded model, each case in its own process."""
    found = {}
    with progress_bar(progress) as bar:
        wanted = [case for case in cases if case.training or case.kind == "plain"]
        task = bar.add_task("memory", total=len(wanted))
        for case in wanted:
            given = json.dumps([asdict(setting), asdict(case)])
            child = [
                sys.executable,
                "-c",
                "import sys; from vpt.bench.bench import report_memory; report_memory(sys.argv[1])",
                given,
            ]
            done = subprocess.run(child, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode == 0:
                found[case.key] = int(done.stdout.split()[-1])
            bar.update(task, advance=1, description=f"memory: {case.key}")
    return found


def report_memory(given: str) -> None:
    """In a fresh process: print the peak bytes of two steps of a case beyond the loaded model."""
    setting, case = json.loads(given)
    stage = Stage(Setting(**(setting | {"tokens": tuple(setting["tokens"])})))
    with stage.ready(Case(**case)) as run:
        print(peak_bytes(lambda: [run(), run()], setting["device"]))  # noqa: T201


def _startup(turns: int) -> dict[str, float]:
    """Seconds of fresh processes, the least of some turns: `import torch`, `import torch, vpt`, and
    `vpt --help`.
    """
    help_ = "import sys; sys.argv = ['vpt', '--help']; from vpt.cli import main; main()"
    found = {"torch": float("inf"), "torch and vpt": float("inf"), "vpt --help": float("inf")}
    for _ in range(turns):
        for name, code in zip(found, ("import torch", "import torch, vpt", help_), strict=True):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)  # noqa: S603
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def machine(setting: Setting) -> dict[str, Any]:
    """What this was measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (
                line.split(":", 1)[1].strip()
                for line in info.read_text().splitlines()
                if line.startswith("model name")
            ),
            name,
        )
    device = torch.cuda.get_device_name() if setting.device.startswith("cuda") else name
    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
