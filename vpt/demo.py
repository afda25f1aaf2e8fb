"""The demonstration: a bundled backbone that never saw a digit, adapted to real handwritten ones, offline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_digits

from vpt.adapting import Result, adapt
from vpt.backbones import Backbone, load_backbone
from vpt.baselines import measure_baselines
from vpt.data import Data, Examples, few_shot, hold_out
from vpt.data.readers import fit_image
from vpt.metrics import mean_std

LABELLED, TESTED = 300, 500
# prompt, and what differs from the default recipe: digits are far from what the backbone knows, so the head moves too
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "deep tokens": ("deep:5", {"epochs": 8, "lr": 2e-2, "readout_lr": 0.1, "augment": "none"}),
    "border": ("border:8", {"epochs": 8, "lr": 1e-2, "augment": "none"}),
}


@dataclass
class Row:
    """One line of the demonstration's table: test accuracies in [0,1], one per seed."""

    name: str
    accuracies: list[float]
    parameters: int
    seconds: float

    def text(self) -> str:
        """Mean, and ± standard deviation over seeds where there are several."""
        mean, std = mean_std(self.accuracies)
        return f"{mean:.1%} ± {std:.1%}" if len(self.accuracies) > 1 else f"{mean:.1%}"


def digits(backbone: Backbone, seed: int = 0) -> Data:
    """scikit-learn's handwritten digits (8 × 8, UCI): 240 to train, 60 to validate, 500 to test, drawn with `seed`."""
    raw = load_digits()
    pictures = [
        fit_image(Image.fromarray((image * 255 / 16).astype("uint8")), backbone.inputs).float() / 255 for image in raw.images
    ]
    everything = Examples(pictures.__getitem__, raw.target.tolist(), [str(d) for d in range(10)])
    labelled = few_shot(everything, LABELLED // 10, seed)
    chosen = set(labelled.indices)
    others = [i for i in range(len(everything)) if i not in chosen]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).tolist()
    train, val = hold_out(labelled, 0.2, seed)
    return Data(train, val, everything.subset([others[i] for i in order[:TESTED]]), everything.classes, [])


def demo(out: Path, seeds: int = 1, progress: bool = True, say: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Deep tokens and a border on digits, beside nearest-mean and linear-probe baselines on the same features and split."""
    rows: dict[str, Row] = {}
    for seed in range(seeds):
        backbone = load_backbone("vpt:vit-p8-64")
        data = digits(backbone, seed)
        say(f"baselines, seed {seed}")
        baselines = measure_baselines(backbone, data, seed, progress)
        for name, (prompt, settings) in FORMS.items():
            say(f"{name}, seed {seed}")
            start = time.monotonic()
            folder = out / f"{name.replace(' ', '-')}-seed{seed}"
            common: dict[str, Any] = {"out": folder, "seed": seed, "overwrite": True, "baselines": baselines}
            result = adapt(data, backbone, prompt, progress=progress, **(common | settings))
            result.model.close()
            _add(rows, result, name, time.monotonic() - start)
    return list(rows.values())


def _add(rows: dict[str, Row], result: Result, name: str, seconds: float) -> None:
    report = result.metrics
    for baseline in ("nearest_mean", "linear_probe") if name == next(iter(FORMS)) else ():
        row = rows.setdefault(baseline, Row(baseline.replace("_", " "), [], 0, 0.0))
        row.accuracies.append(report["baselines"][baseline]["test"])
        row.parameters = result.model.backbone.out_features * 10 + 10 * (baseline == "linear_probe")
    row = rows.setdefault(name, Row(f"{name} ({FORMS[name][0]})", [], 0, 0.0))
    row.accuracies.append(report["test_accuracy"])
    row.parameters = sum(report["parameters_trained"].values())
    row.seconds += seconds
