"""Intervals of shares and of paired differences, against slow and independent ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest

from vpt.metrics.comparing import difference, share_interval, worth


def answers(both: int, better: int, worse: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (both, better, worse, neither)
    return np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)


def slow(better: int, worse: int, n: int) -> list[float]:
    """The same interval from the likelihood itself, maximised by search where the difference is
    held."""
    same = n - better - worse

    def statistic(delta: float) -> float:
        def loss(q: float) -> float:  # the probability that only the second is right
            counts = ((better, q + delta), (worse, q), (same, 1 - 2 * q - delta))
            return -sum(k * np.log(max(p, 1e-300)) for k, p in counts if k)

        bounds = (max(0.0, -delta), (1 - delta) / 2)
        q = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        return (better - worse - n * delta) / np.sqrt(n * (2 * q + delta - delta**2))

    middle = (better - worse) / n
    ends = ((middle - 1e-6, -0.999, -1.959964), (middle + 1e-6, 0.999, 1.959964))
    return [brentq(lambda d, z=z: statistic(d) + z, *sorted((a, b))) for a, b, z in ends]


@pytest.mark.parametrize(
    ("better", "worse", "n"), [(12, 2, 40), (3, 7, 35), (40, 20, 160), (1, 0, 44), (5, 5, 10)]
)
def test_the_interval_is_the_likelihoods_own(better: int, worse: int, n: int) -> None:
    found = difference(*answers(n - better - worse, better, worse, 0))
    low, high = slow(better, worse, n)
    assert (found.value, found.better, found.worse) == ((better - worse) / n, better, worse)
    assert [found.low, found.high] == pytest.approx([low, high], abs=2e-4)
    other = difference(*reversed(answers(n - better - worse, better, worse, 0)))
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


def test_where_both_agree_it_still_doubts() -> None:
    found = difference(*answers(30, 0, 0, 14))
    half = 1.959964**2 / (44 + 1.959964**2)  # Tango 1998, section 4
    assert (found.value, found.low, found.high) == pytest.approx((0, -half, half))
    none = difference(np.zeros(0), np.zeros(0))
    assert (none.low, none.high) == (-1, 1)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    generator, n, hits = np.random.default_rng(0), 40, 0
    for _ in range(1000):
        first = generator.random(n) < 0.8
        second = np.where(generator.random(n) < 0.7, first, generator.random(n) < 0.6)
        found = difference(first, second)
        hits += found.low <= 0.8 - (0.7 * 0.8 + 0.3 * 0.6) <= found.high
    assert 0.92 < hits / 1000 < 0.98


def test_shares() -> None:
    expected = binomtest(9, 10).proportion_ci(method="wilson")
    assert share_interval(9, 10) == pytest.approx((expected.low, expected.high))
    assert share_interval(0, 0) == (0, 1)


def test_examples_of_one_person_are_worth_fewer() -> None:
    """Against how far means of whole persons scatter in the long run."""
    generator = np.random.default_rng(0)
    persons, each = 30, 10
    units = np.repeat(np.arange(persons), each)
    covered, alone = [], []
    for _ in range(300):
        # where a person is spoken by one of the two alone, all of their examples are
        lean = generator.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=persons)[units]
        first, second = lean > 0, lean < 0
        for own, found in ((covered, units.tolist()), (alone, None)):
            gap = difference(first, second, found)
            own.append(gap.low <= 0 <= gap.high)
    assert 0.9 < np.mean(covered) <= 1
    assert np.mean(alone) < 0.7


def test_units_of_one_example_change_nothing_and_few_units_are_doubted() -> None:
    first, second = answers(10, 6, 2, 4)
    plain = difference(first, second)
    assert difference(first, second, list(range(22))) == plain
    assert worth(np.zeros(20), [0] * 20) == 0
    same = difference(np.ones(20), np.ones(20), [0] * 10 + [1] * 10)
    assert same.units == 2
    assert same.high > difference(np.ones(20), np.ones(20)).high
    mixed = [i % 2 for i in range(22)]  # persons as unlike as examples
    assert worth(first.astype(float) - second, mixed) <= 22


def test_one_more_mistake_does_not_make_sure() -> None:
    """Where all of ten persons agree, and where one example deviates: about as much is known."""
    units = [i // 100 for i in range(1000)]
    found = []
    for wrong in (0, 1, 5):
        right = np.ones(1000)
        right[:: 1000 // wrong if wrong else 1001][:wrong] = 0
        found.append(worth(right if wrong else np.ones(1000), units))
    assert found[0] < found[1] < found[2] < 3 * found[1] < 1000
    alone, two = worth(np.ones(20), [0] * 20), worth(np.ones(20), [0] * 10 + [1] * 10)
    assert alone == 0 < two
    nothing = difference(np.ones(20), np.ones(20), [0] * 20)
    assert (nothing.low, nothing.high) == (-1, 1)
