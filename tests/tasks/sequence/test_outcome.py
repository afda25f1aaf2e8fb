"""What an outcome makes of its accuracies, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vpt.tasks.sequence import Outcome


def test_outcome_by_hand() -> None:
    rows = [[1.0], [0.5, 1.0]]
    outcome = Outcome("x", [["a"], ["b"]], [10, 30], rows, [[[1.0, 0.0], [1.0, 0.0]]], model=None)  # type: ignore[arg-type]
    assert outcome.after_each_task == [1.0, pytest.approx((0.5 * 10 + 30) / 40)]
    assert outcome.parts_used == pytest.approx(0.5)  # one of two
    assert outcome.forgetting_l2p == 0.5
    even = Outcome("x", [["a"]], [1], [[1.0]], [[[0.5, 0.5]]], model=None)  # type: ignore[arg-type]
    assert even.parts_used == pytest.approx(1.0)
    assert np.isclose(even.final_average, 1.0)


def test_joint_training_forgets_nothing_and_reports_so() -> None:
    joint = Outcome("joint", [["a"], ["b"]], [10, 30], [[0.5, 1.0]], [], model=None)  # type: ignore[arg-type]
    assert joint.forgetting_l2p is joint.forgetting_coda is joint.parts_used is None
    assert joint.final_average == pytest.approx((0.5 * 10 + 30) / 40)
    assert joint.report() == {
        "method": "joint",
        "tasks": [["a"], ["b"]],
        "accuracy": [[0.5, 1.0]],
        "final_average": joint.final_average,
        "forgetting_l2p": None,
        "forgetting_coda": None,
        "parts_used": None,
        "usage": [],
    }
