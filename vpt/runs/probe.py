"""A linear probe whose strength is chosen by cross-validation: the baseline to beat, and where
prompts begin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vpt.readouts import Linear

# C of scikit-learn: small is strongly regularised
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 1, 11))
FALLBACK = 10**-1.5  # where a class has one example, so that nothing can be held out


def fit_probe(
    features: Tensor,
    y: Tensor,
    classes: int | Sequence[str],
    seed: int = 0,
    strength: float | None = None,
) -> tuple[Linear, float]:
    """Features `[n,D]`, labels `[n]` → (a `Linear` readout on raw features, the C that was used).

    Logistic regression on standardised features. Unless a strength is given, C has the least mean
    log-loss in stratified cross-validation (5 folds, fewer for small classes): log-loss, because it
    keeps the probe calibrated, and accuracy on a few hundred examples is noise.
    """
    x, labels = features.double().numpy(), y.numpy()
    strength = _choose(x, labels, seed) if strength is None else strength
    scaler = StandardScaler().fit(x)
    regression = LogisticRegression(C=strength, max_iter=2000).fit(scaler.transform(x), labels)
    weight, bias = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn gives one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    readout = Linear(features.shape[1], classes)
    with torch.no_grad():
        rows = torch.from_numpy(regression.classes_)
        readout.weight[rows] = torch.from_numpy(weight / scaler.scale_).float()
        # a class without an example is never chosen
        readout.bias.fill_(-1e4 if len(rows) < len(readout.bias) else 0.0)
        readout.bias[rows] = torch.from_numpy(
            bias - weight @ (scaler.mean_ / scaler.scale_)
        ).float()
    return readout, strength


def _choose(x: np.ndarray, labels: np.ndarray, seed: int) -> float:
    folds = min(5, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        return FALLBACK
    losses = np.zeros(len(STRENGTHS))
    for kept, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, labels):
        scaler = StandardScaler().fit(x[kept])
        known, fresh = scaler.transform(x[kept]), scaler.transform(x[held])
        # each strength starts where the last one ended
        regression = LogisticRegression(max_iter=2000, warm_start=True)
        for i, strength in enumerate(STRENGTHS):
            chances = (
                regression.set_params(C=strength).fit(known, labels[kept]).predict_proba(fresh)
            )
            columns = np.searchsorted(regression.classes_, labels[held])
            right = chances[np.arange(len(held)), columns]  # of each example's own class
            losses[i] -= np.log(right.clip(np.finfo(float).eps)).mean()
    return STRENGTHS[int(losses.argmin())]
