"""From counts of what a model says for each class to weights of its classes."""

from __future__ import annotations

import torch
from torch import Tensor


def one_to_one(counts: Tensor, sources: int = 1) -> Tensor:
    """Counts `[K,C]` → weights `[K,C]`: the largest count names a pair, its source is then taken,
    until all have `sources`.

    Among equal counts the first source class, then the first class, goes first (ILM-VP, frequency
    label mapping).
    """
    left, weights = counts.clone(), torch.zeros_like(counts)
    taken = torch.zeros(counts.shape[1], dtype=torch.long)
    for _ in range(counts.shape[1] * sources):
        source, target = divmod(int(left.argmax()), counts.shape[1])
        weights[source, target] = 1 / sources
        left[source] = -1
        taken[target] += 1
        if taken[target] == sources:
            left[:, target] = -1
    return weights


def bayesian(counts: Tensor, smoothing: float = 1.0) -> Tensor:
    """Counts `[K,C]` → weights `[K,C]`, W[s,t] ∝ n[s,t] / (Σ_t' n[s,t'] + smoothing), each column
    summing to 1 (BLM).

    A class that was never counted gets the mean of all source classes.
    """
    shares = counts / (counts.sum(1, keepdim=True) + smoothing).clamp(min=1e-12)
    totals = shares.sum(0, keepdim=True)
    return torch.where(totals > 0, shares / totals.clamp(min=1e-12), 1 / len(counts))
