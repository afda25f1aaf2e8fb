"""The strengths of a method, and settings that are none."""

from __future__ import annotations

import pytest

import vpt
from vpt.errors import TrainingError
from vpt.fairness.strengths import objectives


def test_a_methods_own_strengths_or_those_given_rising() -> None:
    found = objectives("penalty", "dp", None, 0.01, None)
    assert [strength for strength, _ in found] == [0.3, 1.0, 3.0, 10.0, 30.0]
    assert all(isinstance(objective, vpt.GapPenalty) for _, objective in found)
    assert all(objective.criterion == "dp" for _, objective in found)
    given = objectives("worst", "eo", [2, 0], 0.01, None)
    assert [strength for strength, _ in given] == [0.0, 2.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "magic"}, r"method='magic'.* penalty \(on the gap\)"),
        ({"criterion": "odds"}, "criterion='odds'"),
        ({"strengths": "0.1"}, "needed is a list of numbers"),
        ({"strengths": [1.0, 1]}, "all different"),
        ({"budget": True}, "budget=True"),
        ({"bound": 1.0}, "bound=1.0"),
    ],
)
def test_settings_that_are_none(given: dict, message: str) -> None:
    usual = {"method": "penalty", "criterion": "eo", "strengths": None, "budget": 0.1}
    with pytest.raises(TrainingError, match=message):
        objectives(**({"bound": None} | usual | given))
