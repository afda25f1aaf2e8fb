"""An audit: its intervals, what cannot be said, and what is refused."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import numpy as np
import pytest

from vpt.errors import DataError
from vpt.metrics.audit import Cell, Interval, audit, redrawn
from vpt.metrics.comparing import share_interval
from vpt.metrics.groups import TITLES, count_table, rates


def test_the_positive_class_is_the_one_named() -> None:
    y, said, group = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 1, 1]

    def of(name: str | None) -> dict[str, Interval]:
        return audit(y, said, group, ["no", "yes"], ["a", "b"], positive=name).metrics

    assert of("yes")["equal_opportunity_difference"].value == 0
    assert of("no")["equal_opportunity_difference"].value == 0.5
    assert of(None) == of("yes")
    with pytest.raises(DataError, match="positive='maybe'; the classes are no, yes"):
        of("maybe")


def test_a_bootstrap_of_the_table_is_one_of_the_examples() -> None:
    generator = np.random.default_rng(1)
    y, group = generator.integers(0, 2, 300), generator.integers(0, 2, 300)
    said = np.where(generator.random(300) < 0.6 + 0.3 * group, y, 1 - y)
    found = audit(y, said, group, ["a", "b"], ["m", "w"], draws=4000).metrics
    drawn = []
    for _ in range(4000):
        i = generator.integers(0, 300, 300)
        drawn.append(rates(count_table(y[i], said[i], group[i], 2, 2)))
    for name in TITLES:
        low, high = np.percentile([d[name] for d in drawn], [2.5, 97.5])
        one = found[name]
        assert (one.low, one.high) == pytest.approx((low, high), abs=0.012)
        assert one.low <= one.value <= one.high


def test_what_cannot_be_said_is_said_so() -> None:
    # group b has no positives
    y, said, group = [0, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]
    found = audit(y, said, group, ["no", "yes"], ["a", "b", "absent"])
    assert found.empty == [("yes", "b")]
    assert ("no", "b") in found.small
    assert list(found.per_group) == ["a", "b"]
    assert found.cells["yes"]["b"] == Cell(0, None)
    for row in found.cells.values():
        for cell in row.values():
            if cell.n:
                right = round(cell.accuracy * cell.n)
                assert (cell.low, cell.high) == share_interval(right, cell.n)
    assert found.metrics["equal_opportunity_difference"].value is None
    # though that of false positives is known
    assert found.metrics["equalized_odds_difference"].value is None
    assert found.metrics["average_odds_difference"].value is None
    assert found.metrics["fairreprogram_eo"].value is None
    assert found.worst_group == ("no", "a")
    json.dumps(found.as_dict(), allow_nan=False)
    one = audit([0, 1], [0, 1], [0, 0], ["no", "yes"], ["a"])
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "fairreprogram_dp",
        "fairreprogram_eo",
    ):
        assert one.metrics[name] == Interval(None, None, None)


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
        ).n
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
    for name, values in redrawn(places, table[places], table.shape[:2], None, 30, 7).items():
        np.testing.assert_allclose(values, needed[name], atol=1e-12)


def test_many_classes_take_no_table_of_their_square() -> None:
    draw = np.random.default_rng(0)
    y, group = draw.integers(0, 3000, 1000), draw.integers(0, 10, 1000)
    said = np.where(draw.random(1000) < 0.7, y, draw.integers(0, 3000, 1000))
    names = [str(c) for c in range(3000)]
    start = time.process_time()
    found = audit(y, said, group, names, names[:10], draws=20)
    assert found.metrics["accuracy"].value == pytest.approx((y == said).mean())
    assert time.process_time() - start < 10


def test_it_is_plain_values_by_name() -> None:
    found = audit([0, 0, 1], [0, 1, 1], [0, 1, 0], ["no", "yes"], ["a", "b"], draws=10)
    plain = json.loads(json.dumps(found.as_dict()))
    assert list(plain) == [
        "n",
        "metrics",
        "per_group",
        "cells",
        "worst_group",
        "positive",
        "empty",
        "small",
    ]
    assert plain["metrics"]["accuracy"]["value"] == found.value("accuracy") == 2 / 3
    assert plain["per_group"]["a"] == {
        "n": 2,
        "accuracy": 1.0,
        "selected": {"no": 0.5, "yes": 0.5},
    }
    assert plain["cells"]["no"]["b"] == asdict(Cell(1, 0.0, *share_interval(0, 1)))
    assert plain["worst_group"] == ["no", "b"]
    assert np.isnan(found.value("equal_opportunity_difference"))
