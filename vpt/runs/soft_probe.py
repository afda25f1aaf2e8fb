"""Linear probes that learn from shares of classes instead of labels: what scikit-learn's do not
take.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vpt.readouts import Linear
from vpt.runs.probe import in_span, linear_of, one_thread

STEPS = 2000
CLOSE = 1e-4  # of the largest part of the gradient, as scikit-learn has it


def soft_regression(
    x: np.ndarray, shares: np.ndarray, strength: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Weights and, last, biases `[C,F+1]` of least Σ −shares·log p + ‖weights‖²/(2·strength).

    x: rows `[n,F]`.
    shares: of each class in each row `[n,C]`; a row counts as much as its shares sum to.
    strength: C of scikit-learn.
    start: where to begin `[C,F+1]`.

    With one class a row it is multinomial `LogisticRegression`, which minimises the same.
    """
    classes, width = shares.shape[1], x.shape[1]
    rows = shares.sum(1, keepdims=True)
    total = max(float(rows.sum()), 1e-9)  # by which scikit-learn divides, before it stops

    def mean_loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(classes, width + 1)
        scores = x @ weights[:, :-1].T + weights[:, -1]
        logs = scores - logsumexp(scores, axis=1, keepdims=True)
        apart = rows * np.exp(logs) - shares
        slope = np.empty_like(weights)
        slope[:, :-1] = apart.T @ x + weights[:, :-1] / strength
        slope[:, -1] = apart.sum(0)
        value = -(shares * logs).sum() + (weights[:, :-1] ** 2).sum() / (2 * strength)
        return float(value) / total, slope.ravel() / total

    begin = np.zeros((classes, width + 1)) if start is None else start
    how = {"maxiter": STEPS, "gtol": CLOSE, "ftol": 64 * np.finfo(float).eps}
    found = minimize(mean_loss, begin.ravel(), jac=True, method="L-BFGS-B", options=how)
    weights: np.ndarray = found.x.reshape(classes, width + 1)
    return weights


class SoftProbes:
    """Probes on the same features, each told something else of them. All share one standardising
    and one basis, which need no labels, and each begins where the last one ended.

    features: `[n,F]`. of: which they are, as for `vpt.Linear`.
    """

    def __init__(self, features: Tensor, of: str) -> None:
        self.of = of
        self.width = features.shape[1]
        x = features.double().numpy()
        self.scaler = StandardScaler().fit(x)
        self.rows, self.basis = in_span(self.scaler.transform(x))
        self.last: np.ndarray | None = None

    def fit(self, shares: Tensor, strength: float) -> np.ndarray:
        """Weights and, last, biases `[C,r+1]` in the basis. shares: as for `soft_regression`; rows
        that are told nothing do not count.
        """
        told = shares.double().numpy()
        some = told.sum(1) > 0
        with one_thread(self.rows):
            self.last = soft_regression(self.rows[some], told[some], strength, self.last)
        return self.last

    def scores(self, weights: np.ndarray, rows: Sequence[int] | np.ndarray | slice) -> Tensor:
        """Log probabilities of some of the examples `[k,C]`."""
        found = self.rows[rows] @ weights[:, :-1].T + weights[:, -1]
        return torch.log_softmax(torch.from_numpy(found), 1)

    def readout(self, weights: np.ndarray, classes: int | Sequence[str]) -> Linear:
        """The same as a `Linear` readout of raw features."""
        weight, bias = weights[:, :-1], weights[:, -1]
        weight = weight if self.basis is None else weight @ self.basis.T
        everyone = torch.arange(len(bias))
        return linear_of(weight, bias, self.scaler, everyone, classes, self.of)
