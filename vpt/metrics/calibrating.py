"""Whether probabilities mean what they say, and one number that mends them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15
FAR = 100.0  # of scores, from the best
SLOPES = tuple(2.0 ** (power / 4) for power in range(-16, 25))  # 1/temperature, to choose among


def calibration_error(shares: Tensor, y: Tensor) -> float:
    """How far the probability of the likeliest class is from how often it is right: the mean over
    15 equal bins of [0,1], weighted by their examples (Guo et al., ICML 2017, equation 3).

    shares: probabilities `[n,C]`. y: labels `[n]`.
    """
    sure, guess = shares.double().max(1)
    gap = sure - (guess == y).double()
    bins = (sure * BINS).ceil().clamp(1, BINS).long() - 1
    return float(torch.zeros(BINS).double().index_add_(0, bins, gap).abs().sum() / len(y))


def slope_of(scores: Tensor, y: Tensor) -> float:
    """By what class scores `[n,C]` are to be multiplied so that their probabilities are calibrated:
    the inverse temperature of least log loss on examples that the scores never learned from (Guo et
    al., ICML 2017).

    Labels are taken for a little less than certain, by one example in n + 2 (Platt 1999): where
    every example is right, certainty would have no end otherwise.
    """
    return best_slope(lambda slope: scores.double() * slope, y)


def best_slope(scaled: Callable[[float], Tensor], y: Tensor) -> float:
    """The same for scores that depend on it in any way. scaled: slope → class scores `[n,C]`."""
    if not len(y):
        return 1.0
    scores, doubt = scaled(1.0), 1 / (len(y) + 2)
    # a class that no example is near (as it was never learned) has no share in the doubt
    near = (scores.max(1, keepdim=True).values - scores).min(0).values < FAR
    near[y] = True
    place = torch.cumsum(near, 0)[y] - 1

    def loss(slope: float) -> float:
        return float(F.cross_entropy(scaled(slope)[:, near], place, label_smoothing=doubt))

    return min(SLOPES, key=loss)
