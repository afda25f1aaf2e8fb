"""Differences between two decisions, in pairs: against audits of each, and against redrawing by
hand.
"""

from __future__ import annotations

import numpy as np
import pytest

from vpt.errors import DataError
from vpt.metrics.audit import audit
from vpt.metrics.changes import changes, soft_changes
from vpt.metrics.groups import count_table, rates

NAMES = (["no", "yes"], ["a", "b"])


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    y, group = generator.integers(0, 2, (2, n))
    before = np.where(generator.random(n) < 0.6 + 0.3 * (group == y), y, 1 - y)
    after = np.where(generator.random(n) < 0.8, before, y)
    return y, before, after, group


def test_values_are_those_of_two_audits() -> None:
    y, before, after, group = (part.tolist() for part in drawn(300))
    found = changes(y, before, after, group, *NAMES, draws=10)
    old, new = (audit(y, said, group, *NAMES, draws=10) for said in (before, after))
    for name, change in found.items():
        assert change.value == pytest.approx(new.value(name) - old.value(name)), name


def test_intervals_are_those_of_redrawn_examples() -> None:
    y, before, after, group = drawn(300)
    found = changes(y, before, after, group, *NAMES, draws=2000, positive="yes")
    generator = np.random.default_rng(1)
    differences = []
    for _ in range(2000):
        some = generator.integers(0, 300, 300)
        gaps = [
            rates(count_table(y[some], said[some], group[some], 2, 2), 1)["average_odds_difference"]
            for said in (before, after)
        ]
        differences.append(gaps[1] - gaps[0])
    change = found["average_odds_difference"]
    low, high = np.percentile(differences, [2.5, 97.5])
    assert change.low == pytest.approx(low, abs=0.02)
    assert change.high == pytest.approx(high, abs=0.02)


def test_the_same_decisions_differ_in_nothing() -> None:
    y, before, _, group = drawn(100)
    for change in changes(y, before, before, group, *NAMES).values():
        assert (change.value, change.low, change.high) == (0, 0, 0)


def test_pairs_are_surer_than_two_audits() -> None:
    y, before, after, group = drawn(400, seed=3)
    change = changes(y, before, after, group, *NAMES)["accuracy"]
    alone = audit(y.tolist(), after.tolist(), group.tolist(), *NAMES).metrics["accuracy"]
    assert None not in (change.low, change.high, alone.low, alone.high)
    assert change.high - change.low < alone.high - alone.low  # type: ignore[operator]


def test_decisions_that_are_none() -> None:
    y, before, _, group = drawn(20)
    with pytest.raises(DataError, match="predictions from"):
        changes(y, before, before + 5, group, *NAMES)
    with pytest.raises(DataError, match="Found 10 predictions for 20 groups"):
        changes(y, before, before[:10], group, *NAMES)


def test_soft_changes_of_sure_answers_are_those_of_decisions() -> None:
    y, before, after, group = drawn(300)
    sure = soft_changes(y, np.eye(2)[before], np.eye(2)[after], group, draws=2000)
    found = changes(y, before, after, group, *NAMES, draws=2000)
    for name, change in found.items():
        assert sure[name].value == pytest.approx(change.value), name
        assert sure[name].low == pytest.approx(change.low, abs=0.03), name
        assert sure[name].high == pytest.approx(change.high, abs=0.03), name


def test_soft_gaps_are_differences_of_mean_probabilities() -> None:
    y, _, _, group = drawn(200)
    p = np.random.default_rng(2).random((2, 200))
    shares = [np.stack([1 - q, q], 1) for q in p]

    def gap(q: np.ndarray) -> float:
        return sum(
            abs(q[(y == c) & (group == 0)].mean() - q[(y == c) & (group == 1)].mean()) / 2
            for c in (0, 1)
        )

    change = soft_changes(y, *shares, group, draws=10)["average_odds_difference"]
    assert change.value == pytest.approx(gap(p[1]) - gap(p[0]))
