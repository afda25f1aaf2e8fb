"""Pure functions from scores and labels to numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def classification(logits: Tensor, y: Tensor, classes: Sequence[str] | None = None) -> dict:
    """Scores `[n,C]`, labels `[n]` → accuracy, mean cross-entropy, n, and the accuracy of each class that occurs."""
    right = (logits.argmax(1) == y).double()
    names = classes or [str(c) for c in range(logits.shape[1])]
    present = sorted(set(y.tolist()))
    return {
        "accuracy": float(right.mean()),
        "loss": float(F.cross_entropy(logits.double(), y)),
        "n": len(y),
        "per_class": {names[c]: float(right[y == c].mean()) for c in present},
    }


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1; 0 for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def is_finite(value: Tensor | float) -> bool:
    """Whether every entry is a number."""
    return bool(torch.isfinite(torch.as_tensor(value)).all())
