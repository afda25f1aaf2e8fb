"""Group metrics equal fairlearn's on binary labels and their definitions elsewhere; what is
undefined is said.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt.errors import DataError
from vpt.metrics.groups import TITLES, _drawn, audit, count_table, rates

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


def test_the_positive_class_is_the_one_named() -> None:
    y, said, group = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1]
    of = lambda name: audit(y, said, group, ["no", "yes"], ["a", "b"], positive=name)["metrics"]  # noqa: E731
    assert of("yes")["equal_opportunity_difference"]["value"] == 0
    assert of("no")["equal_opportunity_difference"]["value"] == 0.5
    assert of(None) == of("yes")
    with pytest.raises(DataError, match="positive='maybe'; the classes are no, yes"):
        of("maybe")


def test_a_bootstrap_of_the_table_is_one_of_the_examples() -> None:
    generator = np.random.default_rng(1)
    y, group = generator.integers(0, 2, 300), generator.integers(0, 2, 300)
    said = np.where(generator.random(300) < 0.6 + 0.3 * group, y, 1 - y)
    found = audit(y, said, group, ["a", "b"], ["m", "w"], draws=4000)["metrics"]
    drawn = []
    for _ in range(4000):
        i = generator.integers(0, 300, 300)
        drawn.append(rates(count_table(y[i], said[i], group[i], 2, 2)))
    for name in TITLES:
        low, high = np.percentile([d[name] for d in drawn], [2.5, 97.5])
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((low, high), abs=0.012)
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_what_cannot_be_said_is_said_so() -> None:
    # group b has no positives
    y, said, group = [0, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]
    found = audit(y, said, group, ["no", "yes"], ["a", "b", "absent"])
    assert found["empty"] == [("yes", "b")]
    assert ("no", "b") in found["small"]
    assert list(found["per_group"]) == ["a", "b"]
    assert found["cells"]["yes"]["b"] == {"n": 0, "accuracy": None}
    assert found["metrics"]["equal_opportunity_difference"]["value"] is None
    # though that of false positives is known
    assert found["metrics"]["equalized_odds_difference"]["value"] is None
    assert found["metrics"]["average_odds_difference"]["value"] is None
    assert found["metrics"]["fairreprogram_eo"]["value"] is None
    assert found["worst_group"] == ("no", "a")
    json.dumps(found, allow_nan=False)
    one = audit([0, 1], [0, 1], [0, 0], ["no", "yes"], ["a"])
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "fairreprogram_dp",
        "fairreprogram_eo",
    ):
        assert one["metrics"][name] == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize(
    ("y", "said", "group", "message"),
    [
        ([0, 2], [0, 1], [0, 1], "labels from 0 to 2; needed are numbers from 0 to 1"),
        ([0, 1], [0, 1], [-1, 1], "groups from -1 to 1"),
        ([0, 1], [0], [0, 1], "Found 1 predictions for 2"),
        ([], [], [], "Found 0 examples of 2 classes"),
    ],
)
def test_bad_input(y: list[int], said: list[int], group: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        audit(y, said, group, ["a", "b"], ["m", "w"])


@pytest.mark.parametrize(
    ("y", "group", "more", "message"),
    [
        ([0, 0.7], [0, 1], {}, "labels such as 0.7"),
        ([0, 1], [0, float("nan")], {}, "groups such as nan"),
        ([0, 1], ["a", "b"], {}, "groups such as 'a'"),
        ([0, 1], [None, 1], {}, "groups such as None"),
        ([[0, 1]], [0, 1], {}, "labels such as"),
        ([0, 1], [0, 1], {"draws": 0}, "draws=0"),
        ([0, 1], [0, 1], {"draws": -1}, "draws=-1"),
        ([0, 1], [0, 1], {"draws": 2.5}, "draws=2.5"),
        ([0, 1], [0, 1], {"level": 2}, "level=2"),
        ([0, 1], [0, 1], {"level": float("nan")}, "level=nan"),
    ],
)
def test_what_is_no_number_of_a_class_or_group_is_refused(
    y: list, group: list, more: dict, message: str
) -> None:
    """A label of 0.7 was taken for 0; the others ended in foreign errors."""
    with pytest.raises(DataError, match=message):
        audit(y, [0, 1], group, ["no", "yes"], ["a", "b"], **more)
    assert (
        audit(
            [0.0, 1.0], [True, False], np.array([0, 1], dtype=np.uint8), ["no", "yes"], ["a", "b"]
        )["n"]
        == 2
    )


def test_a_redrawn_table_is_that_of_its_counts() -> None:
    table = np.random.default_rng(0).integers(0, 3, (4, 5, 5)).astype(float)
    table[1] = 0
    table[:, 2, 2] = 0
    total = int(table.sum())
    drawn = (
        np.random.default_rng(7)
        .multinomial(total, table.ravel() / total, size=30)
        .reshape(30, *table.shape)
    )
    needed = rates(drawn)
    places = np.nonzero(table)
    for name, values in _drawn(places, table[places], table.shape[:2], None, 30, 7).items():
        np.testing.assert_allclose(values, needed[name], atol=1e-12)


def test_many_classes_take_no_table_of_their_square() -> None:
    draw = np.random.default_rng(0)
    y, group = draw.integers(0, 3000, 1000), draw.integers(0, 10, 1000)
    said = np.where(draw.random(1000) < 0.7, y, draw.integers(0, 3000, 1000))
    names = [str(c) for c in range(3000)]
    start = time.process_time()
    found = audit(y, said, group, names, names[:10], draws=20)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx((y == said).mean())
    assert time.process_time() - start < 10
