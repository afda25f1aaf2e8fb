"""A linear probe whose strength is chosen by cross-validation: the baseline to beat, and where
prompts begin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from vpt.readouts import Linear

# C of scikit-learn: small is strongly regularised
STRENGTHS = tuple(float(c) for c in np.logspace(-6, 5, 23))
ONE_THREAD = 4_000_000  # numbers in the rows, from which on several threads are quicker
FALLBACK = 10**-1.5  # where a class has one example, so that nothing can be held out

Folds = Sequence[tuple[np.ndarray, np.ndarray]]  # (what is kept, what is held out) of each


def fit_probe(
    features: Tensor,
    y: Tensor,
    classes: int | Sequence[str],
    seed: int = 0,
    strength: float | None = None,
    of: str = "cls",
) -> tuple[Linear, float]:
    """Features `[n,D]`, labels `[n]` → (a `Linear` readout on raw features, the C that was used).

    of: which features they are, as for `vpt.Linear`.

    Logistic regression on standardised features. Unless a strength is given, C has the least mean
    log-loss in stratified cross-validation (5 folds, fewer for small classes): log-loss, because it
    keeps the probe calibrated, and accuracy on a few hundred examples is noise.
    """
    x, labels = features.double().numpy(), y.numpy()
    if strength is None:
        folds = _folds(x, labels, seed)
        strength = cross_fitted(x, labels, folds).strength if folds else FALLBACK
    weight, bias, scaler, rows = _fitted(x, labels, strength)
    return linear_of(weight, bias, scaler, rows, classes, of), strength


def linear_of(
    weight: np.ndarray,
    bias: np.ndarray,
    scaler: StandardScaler,
    rows: Tensor,
    classes: int | Sequence[str],
    of: str,
) -> Linear:
    """A regression on standardised features, as a `Linear` readout of raw ones.

    weight: `[K,F]`.
    bias: `[K]`.
    scaler: by which features were standardised.
    rows: which classes these are `[K]`; one that is not among them is never chosen.
    classes: how many, or their names.
    of: which features they are.
    """
    width = weight.shape[1]
    readout = Linear(width, classes, of)
    with torch.no_grad():
        readout.bias.fill_(-1e4 if len(rows) < len(readout.bias) else 0.0)
        if readout.standardised:
            readout.mean.copy_(torch.from_numpy(scaler.mean_))
            readout.scale.copy_(torch.from_numpy(1 / scaler.scale_))
            weight = weight * width**0.5
        else:
            bias = bias - weight @ (scaler.mean_ / scaler.scale_)
            weight = weight / scaler.scale_
        readout.weight[rows] = torch.from_numpy(weight).float()
        readout.bias[rows] = torch.from_numpy(bias).float()
    return readout


@dataclass(frozen=True)
class CrossFitted:
    """What probes that never saw an example say of it.

    strength: C of least log loss. scores: log probabilities `[n,C]` at this C; those of examples
        that were never held out are 0.
    """

    strength: float
    scores: np.ndarray


def cross_fitted(
    x: np.ndarray | Sequence[np.ndarray], labels: np.ndarray, folds: Folds, classes: int = 0
) -> CrossFitted:
    """Probes on features `[n,F]`, fitted on each fold's kept examples, for the C of least log loss
    on those that were held out. x: one for all folds, or one for each. classes: how many there are,
    if the last have no examples.

    Each fold is solved in the span of its training rows, which is exact, as the penalty has no use
    for anything outside it. Over C the loss falls and rises again, so few are tried (`descend`).
    """
    count = max(classes, int(labels.max()) + 1)
    each = [x] * len(folds) if isinstance(x, np.ndarray) else x
    parts = [
        _probe_of(own, labels, kept, held, count)
        for own, (kept, held) in zip(each, folds, strict=True)
    ]
    known: dict[int, tuple[float, np.ndarray]] = {}

    def loss(place: int) -> float:
        if place not in known:
            out = np.zeros((len(labels), count))
            for (_, held), probe in zip(folds, parts, strict=True):
                out[held] = probe(STRENGTHS[place])
            tested = np.concatenate([held for _, held in folds])
            known[place] = float(-out[tested, labels[tested]].mean()), out
        return known[place][0]

    best = descend(loss, len(STRENGTHS))
    return CrossFitted(STRENGTHS[best], known[best][1])


def descend(loss: Callable[[int], float], count: int, start: int | None = None) -> int:
    """Of `count` places, the one of least loss: from the middle, or from `start`, in steps of two,
    both ways, until two in a row are worse than the best; then its neighbours.
    """
    middle = best = count // 2 if start is None else start
    for way in (-2, 2):
        here, worse = middle + way, 0
        while 0 <= here < count and worse < 2:
            worse = 0 if loss(here) < loss(best) else worse + 1
            best = here if worse == 0 else best
            here += way
    near = [place for place in (best, best - 1, best + 1) if 0 <= place < count]
    return min(near, key=loss)


def _probe_of(
    x: np.ndarray, labels: np.ndarray, kept: np.ndarray, held: np.ndarray, count: int
) -> Callable[[float], np.ndarray]:
    """C → log probabilities `[held,C]` of a probe fitted on what is kept. Each call starts where
    the last one ended.
    """
    scaler = StandardScaler().fit(x[kept])
    known, fresh = scaler.transform(x[kept]), scaler.transform(x[held])
    known, basis = in_span(known)
    fresh = fresh if basis is None else fresh @ basis
    regression = LogisticRegression(max_iter=2000, warm_start=True)

    def probe(strength: float) -> np.ndarray:
        with one_thread(known):
            regression.set_params(C=strength).fit(known, labels[kept])
        found = np.full((len(held), count), np.log(np.finfo(float).eps))
        shares = regression.predict_proba(fresh).clip(np.finfo(float).eps)
        found[:, regression.classes_] = np.log(shares)
        return found

    return probe


def one_thread(rows: np.ndarray) -> AbstractContextManager[object]:
    """Inside, scikit-learn computes in one thread, unless the rows are many: for a few thousand
    small products threads wait for each other ten times as long as they compute.
    """
    return threadpool_limits(1) if rows.size < ONE_THREAD else nullcontext()


def in_span(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows `[n,F]` → (the same `[n,r]` in an orthonormal basis of their span, the basis `[F,r]`);
    as they are, and None, where they are no wider than there are of them.
    """
    if rows.shape[1] <= len(rows):
        return rows, None
    values, vectors = np.linalg.eigh(rows @ rows.T)
    full = values > values[-1] * 1e-12
    root = np.sqrt(values[full])
    return vectors[:, full] * root, rows.T @ (vectors[:, full] / root)


def _fitted(
    x: np.ndarray, labels: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray, StandardScaler, Tensor]:
    """(weights `[C,F]` on standardised features, biases, the scaler, which classes these are)."""
    scaler = StandardScaler().fit(x)
    rows = scaler.transform(x)
    rows, basis = in_span(rows)
    with one_thread(rows):
        regression = LogisticRegression(C=strength, max_iter=2000).fit(rows, labels)
    weight, bias = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn gives one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if basis is not None:
        weight = weight @ basis.T
    return weight, bias, scaler, torch.from_numpy(regression.classes_)


def _folds(x: np.ndarray, labels: np.ndarray, seed: int) -> Folds:
    """Stratified, five or as many as the smallest class has examples; none for one."""
    count = min(5, int(np.bincount(labels)[np.unique(labels)].min()))
    if count < 2:
        return []
    return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(x, labels))
