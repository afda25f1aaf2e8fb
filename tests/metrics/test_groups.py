"""Group metrics equal fairlearn's on binary labels and their definitions elsewhere; what is
undefined is said.
"""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.errors import DataError
from vpt.metrics.groups import TITLES, count_table, rates

# 3 groups × 2 labels × 2 predictions, none empty
CELLS = st.lists(st.integers(1, 30), min_size=12, max_size=12)


def examples(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, predictions, groups) that make this table."""
    places = np.repeat(np.argwhere(table >= 0), table.ravel(), axis=0)
    return places[:, 1], places[:, 2], places[:, 0]


@settings(deadline=None, max_examples=25)
@given(CELLS)
def test_binary_values_are_fairlearns(cells: list[int]) -> None:
    table = np.array(cells).reshape(3, 2, 2)
    y, said, group = examples(table)
    assert (count_table(y, said, group, 2, 3) == table).all()
    found = rates(table)
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equalized_odds_difference",
        "equal_opportunity_difference",
    ):
        assert found[name] == pytest.approx(
            getattr(fairlearn, name)(y, said, sensitive_features=group), abs=1e-12
        )
    mean = fairlearn.equalized_odds_difference(y, said, sensitive_features=group, agg="mean")
    assert found["average_odds_difference"] == pytest.approx(mean, abs=1e-12)
    frame = fairlearn.MetricFrame(
        metrics=lambda a, b: (a == b).mean(),
        y_true=y,
        y_pred=said,
        sensitive_features=group * 2 + y,
    )
    assert found["worst_group_accuracy"] == pytest.approx(frame.group_min(), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(frame.by_group.mean(), abs=1e-12)
    assert found["accuracy"] == pytest.approx((y == said).mean(), abs=1e-12)


@given(CELLS)
def test_fairreprograms_scale_is_its_definition(cells: list[int]) -> None:
    table = np.array(cells).reshape(3, 2, 2)
    y, said, group = examples(table)
    rate = lambda keep: said[keep].mean()  # noqa: E731
    everyone = np.ones(len(y), bool)
    parity = np.mean([abs(rate(everyone) - rate(group == z)) for z in range(3)])
    false_positive = [abs(rate(y == 0) - rate((y == 0) & (group == z))) for z in range(3)]
    false_negative = [
        abs((1 - rate(y == 1)) - (1 - rate((y == 1) & (group == z)))) for z in range(3)
    ]
    found = rates(table)
    assert found["fairreprogram_dp"] == pytest.approx(parity, abs=1e-12)
    assert found["fairreprogram_eo"] == pytest.approx(
        np.mean(np.add(false_positive, false_negative)), abs=1e-12
    )
    two = rates(table[:2])
    assert two["fairreprogram_dp"] == pytest.approx(
        two["demographic_parity_difference"] / 2, abs=1e-12
    )
    assert two["fairreprogram_eo"] == pytest.approx(two["average_odds_difference"], abs=1e-12)


@given(st.lists(st.integers(1, 9), min_size=18, max_size=18))
def test_of_more_classes_the_worst_against_the_rest_is_given(cells: list[int]) -> None:
    table = np.array(cells).reshape(2, 3, 3)
    y, said, group = examples(table)
    found, each = rates(table), []
    for c in range(3):
        each.append(rates(count_table(y == c, said == c, group, 2, 2)))
    for name in TITLES:
        if name.endswith("difference"):
            assert found[name] == pytest.approx(max(one[name] for one in each), abs=1e-12)
    assert found["demographic_parity_ratio"] == pytest.approx(
        min(o["demographic_parity_ratio"] for o in each), abs=1e-12
    )


def test_a_table_of_counts_by_hand() -> None:
    table = count_table([0, 0, 1], [0, 1, 1], [1, 1, 0], 2, 2)
    assert table.tolist() == [[[0, 0], [0, 1]], [[1, 1], [0, 0]]]
    with pytest.raises(DataError, match="labels from 0 to 2"):
        count_table([0, 2], [0, 1], [0, 1], 2, 2)
