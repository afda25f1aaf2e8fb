"""The model's own scores, corrected by a linear head on its frozen features, so that groups are
served alike.

The correction starts at nothing, and its weights are decayed: with few examples the model stays
what it is. Nothing passes through the model, so that every strength is cross-fitted in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler

from vpt.runs.probe import STRENGTHS as DECAYS
from vpt.runs.probe import Folds, descend, in_span, one_thread

SHRINK = 5.0  # examples of its stratum that each cell's mean is pulled by
STEPS = 300  # of L-BFGS


@dataclass(frozen=True)
class Cells:
    """What is compared: the groups `[n]` within each stratum `[n]` (a label, or all are one)."""

    stratum: np.ndarray
    group: np.ndarray

    def take(self, rows: np.ndarray) -> Cells:
        """Of these examples alone."""
        return Cells(self.stratum[rows], self.group[rows])

    def means(self) -> list[np.ndarray]:
        """For each stratum with two groups or more: the weights `[Z,n]` of a mean in each group,
        pulled towards the mean of the stratum where a group has few examples there.
        """
        found = []
        for stratum in np.unique(self.stratum):
            inside = self.stratum == stratum
            groups = np.unique(self.group[inside])
            own = np.stack([inside & (self.group == g) for g in groups]).astype(float)
            counts = own.sum(1, keepdims=True)
            if len(groups) > 1:
                pulled = SHRINK / (counts + SHRINK)
                found.append((1 - pulled) * own / counts + pulled * inside / inside.sum())
        return found


def gap_of(shares: np.ndarray, means: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
    """Probabilities `[n,C]` → (Σ over strata, pairs of groups and classes of the squared
    difference of their means, its gradient `[n,C]`).

    As `vpt.GapPenalty` has it, over all examples at once. Σ over pairs of |m − m'|² is Z times the
    sum of squared distances from the mean of means.
    """
    value, slope = 0.0, np.zeros_like(shares)
    for weights in means:
        own = weights @ shares
        apart = own - own.mean(0)
        value += len(own) * float((apart**2).sum())
        slope += 2 * len(own) * weights.T @ apart
    return value, slope


def correction(
    z: np.ndarray,
    bare: np.ndarray,
    y: np.ndarray,
    cells: Cells,
    strength: float,
    decay: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Weights and bias `[F+1,C]` of what is added to the scores.

    The least of mean cross-entropy + strength / C · `gap_of` + ‖weights‖² / (2 · decay · n).

    z: standardised features `[n,F]`.
    bare: the model's own scores `[n,C]`.
    y: labels `[n]`.
    cells: which examples are compared.
    strength: of the penalty on the gap.
    decay: as scikit-learn's C: small keeps the model as it is.
    start: where to begin, or at nothing.
    """
    count, classes = bare.shape
    rows, target = np.arange(count), np.eye(classes)[y]
    means = cells.means() if strength else []

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, classes)
        scores = bare + z @ weights[:-1] + weights[-1]
        scores = scores - scores.max(1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        shares = np.exp(logs)
        gap, slope = gap_of(shares, means)
        slope = slope * strength / classes
        toward = (shares - target) / count
        toward += shares * (slope - (shares * slope).sum(1, keepdims=True))
        value = strength / classes * gap - logs[rows, y].mean()
        value += (weights[:-1] ** 2).sum() / (2 * decay * count)
        gradient = np.concatenate(
            [z.T @ toward + weights[:-1] / (decay * count), toward.sum(0, keepdims=True)]
        )
        return float(value), gradient.ravel()

    begin = np.zeros((z.shape[1] + 1, classes)) if start is None else start
    with one_thread(z):
        found = minimize(
            loss, begin.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
        )
    return np.asarray(found.x).reshape(-1, classes)


@dataclass
class Head:
    """A correction on one set of features, cross-fitted.

    text: which features, as for `vpt.Linear`. x: they `[n,F]`. bare: the model's own scores
        `[n,C]`. y: labels `[n]`. folds: of which nothing held out is learned from.
    """

    text: str
    x: np.ndarray
    bare: np.ndarray
    y: np.ndarray
    cells: Cells
    folds: Folds

    def __post_init__(self) -> None:
        self._parts = [_Part(self, kept, held) for kept, held in self.folds]
        self._means = self.cells.means()
        self._place = len(DECAYS) // 2
        self._found: dict[float, tuple[np.ndarray, float]] = {}

    def held_out(self, strength: float) -> np.ndarray:
        """Scores `[n,C]` of examples that were not learned from."""
        return self._at(strength)[0]

    def decay(self, strength: float) -> float:
        """That which is best on what was held out, by log loss and the penalty on the gap."""
        return self._at(strength)[1]

    def _at(self, strength: float) -> tuple[np.ndarray, float]:
        """(What is said out of fold, the decay). Asked for rising strengths: the search begins
        where the last one ended, and a stronger penalty is given no less room.
        """
        if strength not in self._found:
            tried: dict[int, tuple[float, np.ndarray]] = {}

            def loss(place: int) -> float:
                if place not in tried:
                    out = self._held_out(strength, DECAYS[place])
                    tried[place] = self._loss(out, strength), out
                return tried[place][0]

            place = descend(loss, len(DECAYS), self._place)
            if self._found:  # or a strong penalty is met by answers that are all alike
                place = max(place, self._place)
            loss(place)
            self._place = place
            self._found[strength] = tried[place][1], DECAYS[place]
        return self._found[strength]

    def _loss(self, scores: np.ndarray, strength: float) -> float:
        logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
        gap, _ = gap_of(np.exp(logs), self._means)
        missed = -float(logs[np.arange(len(self.y)), self.y].mean())
        return missed + strength / scores.shape[1] * gap

    def _held_out(self, strength: float, decay: float) -> np.ndarray:
        out = np.array(self.bare)
        for part in self._parts:
            out[part.held] = part.scores(strength, decay)
        return out

    @cached_property
    def _whole(self) -> tuple[StandardScaler, np.ndarray, np.ndarray | None]:
        """(The scaler, rows in their span, its basis) of all examples: the same for every
        strength.
        """
        scaler = StandardScaler().fit(self.x)
        return scaler, *in_span(scaler.transform(self.x))

    def fit(self, strength: float) -> tuple[np.ndarray, np.ndarray, StandardScaler]:
        """(weights `[C,F]` on standardised features, biases `[C]`, the scaler), of all examples."""
        scaler, z, basis = self._whole
        decay = self.decay(strength)
        found = correction(z, self.bare, self.y, self.cells, strength, decay)
        weights = found[:-1] if basis is None else basis @ found[:-1]
        return weights.T, found[-1], scaler


class _Part:
    """One fold, in the span of what it learns from, which is exact: decay has no use for anything
    outside it.
    """

    def __init__(self, head: Head, kept: np.ndarray, held: np.ndarray) -> None:
        scaler = StandardScaler().fit(head.x[kept])
        self.z, basis = in_span(scaler.transform(head.x[kept]))
        fresh = scaler.transform(head.x[held])
        self.fresh = fresh if basis is None else fresh @ basis
        self.bare, self.y = head.bare[kept], head.y[kept]
        self.cells = head.cells.take(kept)
        self.held, self.outside = held, head.bare[held]
        self.last: np.ndarray | None = None

    def scores(self, strength: float, decay: float) -> np.ndarray:
        self.last = correction(self.z, self.bare, self.y, self.cells, strength, decay, self.last)
        return self.outside + self.fresh @ self.last[:-1] + self.last[-1]
