"""The rule that chooses a point, by hand; and a point in plain values."""

from __future__ import annotations

import json

import numpy as np

from vpt.fairness.choosing import Point, choose
from vpt.metrics.audit import Audit, Cell, GroupRates, Interval


def point(accuracy: float, gap: float | None, strength: float = 0.0, note: str = "") -> Point:
    values = {"accuracy": accuracy, "average_odds_difference": gap}
    return Point(
        repr(strength),
        strength,
        Audit(
            10,
            {name: Interval(value, None, None) for name, value in values.items()},
            {"m": GroupRates(10, accuracy, {"a": 1.0})},
            {"a": {"m": Cell(10, accuracy)}},
            ("a", "m"),
            None,
            [],
            [],
        ),
        None,
        None,
        note,
    )


# the rule -------------------------------------------------------------------------------
def test_the_fairest_within_the_budget() -> None:
    base, points = point(0.9, 0.4), [point(0.9, 0.35, 0), point(0.89, 0.2, 1), point(0.8, 0.05, 2)]
    assert choose(base, points, "average_odds_difference", 0.01, None)[0].strength == 1
    assert choose(base, points, "average_odds_difference", 0.005, None)[0].strength == 0
    assert choose(base, points, "average_odds_difference", 0.2, None)[0].strength == 2
    chosen, rule = choose(point(0.99, 0.4), points, "average_odds_difference", 0.01, None)
    assert (chosen.strength, rule[:32]) == (0, "the most accurate, since none is")


def test_the_most_accurate_under_the_bound() -> None:
    base, points = point(0.9, 0.4), [point(0.9, 0.35, 0), point(0.89, 0.2, 1), point(0.8, 0.05, 2)]
    assert choose(base, points, "average_odds_difference", 0.01, 0.3)[0].strength == 1
    chosen, rule = choose(base, points, "average_odds_difference", 0.01, 0.01)
    assert (chosen.strength, rule[:27]) == (2, "the fairest, since none has")


def test_what_broke_or_cannot_be_said_is_not_chosen() -> None:
    points = [point(0.9, 0.3, 0), point(0.9, None, 1), point(0.9, 0.0, 2, note="broken")]
    assert choose(point(0.9, 0.4), points, "average_odds_difference", 0.01, None)[0].strength == 0


def test_a_point_in_plain_values() -> None:
    one = point(0.9, None, 2.0, note="broken")
    plain = json.loads(json.dumps(one.as_dict()))
    assert list(plain) == ["name", "strength", "note", "val", "test", "rows"]
    assert (plain["name"], plain["note"], plain["test"]) == ("2.0", "broken", None)
    assert plain["val"] == json.loads(json.dumps(one.val.as_dict()))
    assert np.isnan(one.value("average_odds_difference"))
    assert one.called == "strength 2"
    assert Point("alone", None, one.val, None).called == "accuracy alone"
