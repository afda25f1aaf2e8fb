"""Two answers to the same examples compared: how much more often one is right, and how sure that
is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959964  # of 95 %


@dataclass(frozen=True)
class Difference:
    """How much more often the first of two is right on the same n examples.

    value: difference of accuracies. low, high: its interval of 95 %. better, worse: examples that
        only the first, and only the second, has right.
    """

    value: float
    low: float
    high: float
    better: int
    worse: int
    n: int


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """From which examples the first has right, and the second, `[n]` each.

    The interval is the score interval of paired shares (Tango, Statistics in Medicine 17, 1998,
    equations 8 and 9), which holds for few examples too, and where both always agree.
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    n = len(first)
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 0, 0, 0)
    value = (better - worse) / n
    # by its symmetry, the upper limit is the lower one with the two exchanged
    return Difference(value, -_upper(worse, better, n), _upper(better, worse, n), better, worse, n)


def _upper(better: int, worse: int, n: int) -> float:
    """The largest difference that is not refused: where the score statistic is −z."""
    low, high = (better - worse) / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(better, worse, n, middle) > -Z else (low, middle)
    return high


def _score(better: int, worse: int, n: int, delta: float) -> float:
    """(b − c − nΔ) / √(n (2 q̂ + Δ (1 − Δ))), with q̂, the share of `worse`, most likely given Δ."""
    a = 2 * n
    b = -better - worse + (2 * n - better + worse) * delta
    c = -worse * delta * (1 - delta)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    spread = n * (2 * share + delta * (1 - delta))
    gap = better - worse - n * delta
    if spread <= 0:
        return 0.0 if gap == 0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(spread)


def share_interval(right: float, n: int) -> tuple[float, float]:
    """The interval of a share with 95 % (Wilson 1927); (0, 1) of none."""
    if n == 0:
        return 0.0, 1.0
    share, extra = right / n, Z * Z / n
    middle = (share + extra / 2) / (1 + extra)
    half = Z / (1 + extra) * ((share * (1 - share) + extra / 4) / n) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
