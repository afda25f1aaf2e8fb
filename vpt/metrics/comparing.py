"""Two answers to the same examples compared: how much more often one is right, and how sure that
is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

Z = 1.959964  # of 95 %


@dataclass(frozen=True)
class Difference:
    """How much more often the first of two is right on the same n examples.

    value: difference of accuracies. low, high: its interval of 95 %. better, worse: examples that
        only the first, and only the second, has right. units: into how many the examples fall
        that belong together (persons, recordings); n where each is its own.
    """

    value: float
    low: float
    high: float
    better: int
    worse: int
    n: int
    units: int


def difference(
    first: np.ndarray, second: np.ndarray, units: Sequence[int] | None = None
) -> Difference:
    """From which examples the first has right, and the second, `[n]` each.

    The interval is the score interval of paired shares (Tango, Statistics in Medicine 17, 1998,
    equations 8 and 9), which holds for few examples too, and where both always agree. Where
    examples belong together, by `units`, it is that of as many as are worth as much (`worth`).
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    n = len(first)
    if n == 0:
        return Difference(0.0, -1.0, 1.0, 0, 0, 0, 0)
    value = (better - worse) / n
    share = worth(first.astype(float) - second, units) / n
    if share == 0:
        return Difference(value, -1.0, 1.0, better, worse, n, _count(units, n))
    b, w, m = share * better, share * worse, share * n
    # by its symmetry, the upper limit is the lower one with the two exchanged
    low, high = -_upper(w, b, m), _upper(b, w, m)
    return Difference(value, low, high, better, worse, n, _count(units, n))


def worth(values: np.ndarray, units: Sequence[int] | None) -> float:
    """How many examples that stand alone say as much about the mean of these values `[n]` as they
    do, where those of a unit are alike: n divided by the design effect (Kish 1965; Rao and Scott,
    JASA 76, 1981), with Student's t for few units. One unit is worth nothing.

    The effect is guessed as if one more example deviated, and all of its unit with it: where all
    agree, nothing else would be known of it.
    """
    n = len(values)
    if units is None or len(set(units)) == n or n == 0:
        return float(n)
    _, place = np.unique(np.asarray(units), return_inverse=True)
    count = int(place.max()) + 1
    if count == 1:
        return 0.0
    rest = values - values.mean()
    alone = float((rest**2).sum())
    sums = np.bincount(place, rest)
    together = float((sums**2).sum()) * count / (count - 1)
    effect = max(1.0, (together + n / count) / (alone + 1))
    return n / (effect * (float(stdtrit(count - 1, 0.975)) / Z) ** 2)


def _count(units: Sequence[int] | None, n: int) -> int:
    return n if units is None else len(set(units))


def _upper(better: float, worse: float, n: float) -> float:
    """The largest difference that is not refused: where the score statistic is −z."""
    low, high = (better - worse) / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(better, worse, n, middle) > -Z else (low, middle)
    return high


def _score(better: float, worse: float, n: float, delta: float) -> float:
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


def share_interval(right: float, n: float) -> tuple[float, float]:
    """The interval of a share with 95 % (Wilson 1927); (0, 1) of none.

    n: how many there are, or are worth (`worth`).
    """
    if n == 0:
        return 0.0, 1.0
    share, extra = right / n, Z * Z / n
    middle = (share + extra / 2) / (1 + extra)
    half = Z / (1 + extra) * ((share * (1 - share) + extra / 4) / n) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
