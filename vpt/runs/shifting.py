"""How far scores are to be moved so that mistakes are right, and what that does to all else.

What else there is, is drawn from the moments that a run remembers: no earlier example is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import one_hot

from vpt.runs.moments import LEVEL, Moments
from vpt.runs.probe import one_thread

FOLDS = 5
STEPS = 100  # of L-BFGS
# what the given examples count, beside all that is remembered
STRENGTHS = tuple(float(f"{10 ** (e / 4):.2g}") for e in range(-12, 1))


@dataclass(frozen=True)
class Shift:
    """A correction of the scores of k examples, of one strength.

    weight `[C,F]` of standardised features, and bias `[C]`. said: the scores after it `[k,C]`.
    right: which it has right `[k]`. held_out: which it has right when fitted without them and
    those of their unit `[k]`, by so many folds. lost, won: the share of all else that it turns
    wrong, and right.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    said: Tensor
    right: np.ndarray
    held_out: np.ndarray
    lost: float
    won: float
    folds: int

    def remembered(self, moments: Moments, z: Tensor, y: Tensor) -> Moments:
        """What to remember from now on: scores as they are after it, and the means of the examples
        for whose sake it was, which count as any others.

        moments: before it. z: their standardised features `[k,F]`. y: labels `[k]`.
        """
        kinds, place, counts = y.unique(return_inverse=True, return_counts=True)
        of_kind = (one_hot(place).float() / counts).T
        moved = moments.scores + moments.centre @ self.weight.T + self.bias
        return replace(
            moments,
            y=torch.cat([moments.y, kinds]),
            weight=torch.cat([moments.weight, counts / len(y) * float(moments.weight.min())]),
            centre=torch.cat([moments.centre, of_kind @ z]),
            scores=torch.cat([moved, of_kind @ self.said]),
            scores_factor=moments.scores_factor + moments.factor @ self.weight.T,
        )


def shifts(
    moments: Moments, z: Tensor, said: Tensor, y: Tensor, units: Sequence[int] | None = None
) -> Iterator[Shift]:
    """Corrections of rising strength.

    moments: what is remembered of all else.
    z: standardised features `[k,F]` of the examples to be right.
    said: their scores `[k,C]`.
    y: their labels `[k]`.
    units: which of them belong together.

    The least of mean cross-entropy against what is said now, over examples drawn from the moments,
    + strength · mean cross-entropy of the given ones. Weights are kept in the span of the given
    features, whitened by the second moments: there a change of given scores moves the others least.
    """
    directions = moments.whitened(z)
    found = _Scores.of(moments, directions, z, said, y)
    places = _folds(len(y), units)
    folds = int(places.max()) + 1
    start = np.zeros((len(y), said.shape[1]))
    with one_thread(found.along):
        for strength in STRENGTHS:
            start = found.fit(np.arange(len(y)), strength, start)
            held = np.zeros(len(y), bool)
            for fold in range(folds if folds > 1 else 0):
                kept, out = np.flatnonzero(places != fold), np.flatnonzero(places == fold)
                part = found.fit(kept, strength, start[kept])
                after = found.given[out] + found.inner[np.ix_(out, kept)] @ part
                held[out] = after.argmax(1) == found.y[out]
            own = found.given + found.inner @ start
            was = found.drawn.argmax(1) == found.drawn_y
            now = (found.drawn + found.along @ start).argmax(1) == found.drawn_y
            moved = torch.from_numpy(start).float()
            yield Shift(
                strength,
                moved.T @ directions,
                moved.sum(0) / (1 + LEVEL),
                torch.from_numpy(own).float(),
                own.argmax(1) == found.y,
                held,
                float((was & ~now).mean()),
                float((now & ~was).mean()),
                folds,
            )


@dataclass
class _Scores:
    """Everything that a correction is fitted on, in the directions of k given examples.

    given `[k,C]`, y `[k]`: their scores and labels. inner `[k,k]`: their features along the
    directions. drawn `[N,C]`, drawn_y `[N]`, along `[N,k]`: the same of what else there is.
    """

    given: np.ndarray
    y: np.ndarray
    inner: np.ndarray
    drawn: np.ndarray
    drawn_y: np.ndarray
    along: np.ndarray

    @classmethod
    def of(
        cls, moments: Moments, directions: Tensor, z: Tensor, said: Tensor, y: Tensor
    ) -> _Scores:
        """directions: z, whitened."""
        drawn, along, labels = moments.drawn(directions)
        # a constant feature, of mean square one, makes the bias
        inner = z @ directions.T + 1 / (1 + LEVEL)
        along = along + 1 / (1 + LEVEL)
        parts = (said.double(), y, inner.double(), drawn.double(), labels, along.double())
        return cls(*(part.numpy() for part in parts))

    def __post_init__(self) -> None:
        self.shares = np.exp(_logs(self.drawn))

    def fit(self, rows: np.ndarray, strength: float, start: np.ndarray) -> np.ndarray:
        """How far to go along the directions of these examples `[len(rows),C]`."""
        inner, along = self.inner[np.ix_(rows, rows)], self.along[:, rows]
        classes = self.given.shape[1]
        wanted, now = np.eye(classes)[self.y[rows]], self.shares

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            moved = flat.reshape(-1, classes)
            value, slope = _missed(self.drawn + along @ moved, now)
            other, toward = _missed(self.given[rows] + inner @ moved, wanted)
            gradient = along.T @ slope + strength * inner.T @ toward
            return value + strength * other, gradient.ravel()

        found = minimize(
            loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        return np.asarray(found.x).reshape(-1, classes)


def _logs(scores: np.ndarray) -> np.ndarray:
    scores = scores - scores.max(1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(1, keepdims=True)))


def _missed(scores: np.ndarray, wanted: np.ndarray) -> tuple[float, np.ndarray]:
    """(mean cross-entropy, its gradient `[n,C]`)."""
    logs = _logs(scores)
    return -float((wanted * logs).sum(1).mean()), (np.exp(logs) - wanted) / len(scores)


def _folds(count: int, units: Sequence[int] | None) -> np.ndarray:
    """The fold of each example `[k]`; those of a unit are in one. All zero for a single unit."""
    kinds, place = np.unique(
        np.arange(count) if units is None else np.array(units), return_inverse=True
    )
    return place % min(FOLDS, len(kinds))
