"""Pure functions from scores and labels to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.metrics.calibrating import calibration_error
from vpt.metrics.comparing import share_interval, worth


class Scored(TypedDict):
    """What scores of n examples come to.

    accuracy: with `interval`, which holds it with 95 % (Wilson; of units, where examples belong
        together). balanced_accuracy: the mean over
        the classes that occur. loss: mean cross-entropy, nats. calibration_error: see
        `calibration_error`. per_class: accuracy of each class that occurs; per_class_n: its
        examples.
    """

    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    loss: float
    calibration_error: float
    n: int
    per_class: dict[str, float]
    per_class_n: dict[str, int]


def classification(
    logits: Tensor,
    y: Tensor,
    classes: Sequence[str] | None = None,
    units: Sequence[int] | None = None,
) -> Scored:
    """Scores `[n,C]` and labels `[n]` → `Scored`. units: which examples belong together."""
    right = (logits.argmax(1) == y).double()
    alone = worth(right.numpy(), units)
    names = classes or [str(c) for c in range(logits.shape[1])]
    present = sorted(set(y.tolist()))
    per_class = {names[c]: float(right[y == c].mean()) for c in present}
    return {
        "accuracy": float(right.mean()),
        "interval": share_interval(float(right.mean()) * alone if len(y) else 0.0, alone),
        "balanced_accuracy": float(np.mean(list(per_class.values()))),
        "loss": float(F.cross_entropy(logits.double(), y)),
        "calibration_error": calibration_error(torch.softmax(logits.double(), 1), y),
        "n": len(y),
        "per_class": per_class,
        "per_class_n": {names[c]: int((y == c).sum()) for c in present},
    }


def forgetting_l2p(matrix: Sequence[Sequence[float]]) -> float:
    """Mean over earlier tasks i of max_t a_{t,i} − a_{T,i}, from accuracies a `[T][i ≤ t]` (L2P,
    Wang et al. CVPR 2022).

    max over t < T. 0 for a single task. Of the same run a much larger number than
    `forgetting_coda`: never compare the two.
    """
    last = len(matrix) - 1
    drops = [max(matrix[t][i] for t in range(i, last)) - matrix[last][i] for i in range(last)]
    return float(np.mean(drops)) if drops else 0.0


def forgetting_coda(matrix: Sequence[Sequence[float]]) -> float:
    """F_N = 1/(T−1) Σ_{t=2..T} 1/(t−1) Σ_{i<t} (a_{t−1,i} − a_{t,i}), from accuracies a `[T][i ≤
    t]`.

    The mean over steps of the mean drop of the tasks before: CODA-Prompt's
    `utils/calc_forgetting.py`, by which its authors made the paper's tables. 0 for a single task.
    """
    steps = [
        float(np.mean([matrix[t - 1][i] - matrix[t][i] for i in range(t)]))
        for t in range(1, len(matrix))
    ]
    return float(np.mean(steps)) if steps else 0.0


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1; 0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
