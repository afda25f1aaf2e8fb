"""What a prompt must beat: nearest class mean and a linear probe, on the same features and
split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vpt.backbones import Backbone
from vpt.data import Data
from vpt.metrics import classification as metrics
from vpt.model import PromptedModel
from vpt.readouts import Linear, NearestMean, Readout
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import scores


@dataclass
class Baselines:
    """The same split without a prompt: accuracies on validation and test, the probe, and C, its
    strength.
    """

    nearest_mean: dict[str, float]
    linear_probe: dict[str, float]
    probe: Linear
    strength: float


def measure_baselines(
    backbone: Backbone, data: Data, seed: int = 0, progress: bool = False
) -> Baselines:
    """Nearest class mean and a cross-validated linear probe on the bare backbone's features, on the
    same split.
    """
    parts = {
        name: part
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
        if part is not None
    }
    means = NearestMean(backbone.out_features, data.classes)
    with PromptedModel(backbone, None, means) as model:
        found = {
            k: scores(model, part, outputs=True, progress=progress, what=f"features ({k})")
            for k, part in parts.items()
        }
    means.cpu().update(*found["train"])
    probe, strength = fit_probe(*found["train"], classes=data.classes, seed=seed)
    held = {name: value for name, value in found.items() if name != "train"}
    return Baselines(_accuracies(means, held), _accuracies(probe, held), probe, strength)


@torch.no_grad()
def _accuracies(readout: Readout, found: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    return {
        name: metrics.classification(readout(features), y)["accuracy"]
        for name, (features, y) in found.items()
    }
