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
    means = NearestMean(backbone.out_features, data.classes)
    with PromptedModel(backbone, None, means) as model:
        features = {
            name: scores(model, part, outputs=True, progress=progress, what=f"features ({name})")
            for name, part in data.parts.items()
        }
    x, y = features.pop("train")
    means.cpu().update(x, y)
    probe, strength = fit_probe(x, y, data.classes, seed)
    return Baselines(_accuracies(means, features), _accuracies(probe, features), probe, strength)


@torch.no_grad()
def _accuracies(readout: Readout, parts: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    return {
        name: metrics.classification(readout(features), y)["accuracy"]
        for name, (features, y) in parts.items()
    }
