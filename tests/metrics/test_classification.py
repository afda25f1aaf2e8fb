"""Numbers from scores and labels, against hand-worked values and scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, recall_score

from vpt.metrics.classification import (
    classification,
    forgetting_coda,
    forgetting_l2p,
    mean_std,
)


def test_classification_by_hand():
    logits = torch.log(torch.tensor([[0.8, 0.1, 0.1], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    found = classification(logits, torch.tensor([0, 1, 2]), ["a", "b", "c"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-(math.log(0.8) + math.log(0.25) + math.log(0.6)) / 3)
    assert found["n"] == 3
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["per_class_n"] == {"a": 1, "b": 1, "c": 1}
    assert 0.2 < found["interval"][0] < 2 / 3 < found["interval"][1] < 0.95
    assert found["per_class"] == {"a": 1.0, "b": 0.0, "c": 1.0}


def test_classification_agrees_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits, y = (
        torch.randn(200, 5, generator=generator),
        torch.randint(5, (200,), generator=generator),
    )
    found = classification(logits, y)
    guess = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, guess))
    assert found["loss"] == pytest.approx(
        log_loss(y, torch.softmax(logits.double(), 1), labels=range(5))
    )
    assert list(found["per_class"].values()) == pytest.approx(
        recall_score(y, guess, average=None).tolist()
    )
    assert list(found["per_class"]) == ["0", "1", "2", "3", "4"]


def test_classes_that_do_not_occur_are_left_out():
    found = classification(torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([1]), ["a", "b", "c"])
    assert found["per_class"] == {"b": 0.0}


def test_a_class_that_cannot_be_chosen_costs_infinitely_much():
    found = classification(torch.tensor([[0.0, -math.inf]]), torch.tensor([1]))
    assert (found["loss"], found["accuracy"]) == (math.inf, 0.0)


def test_half_precision_scores_are_averaged_in_double():
    logits = torch.zeros(5000, 3, dtype=torch.float16)
    assert classification(logits, torch.zeros(5000, dtype=torch.long))["loss"] == pytest.approx(
        math.log(3), abs=1e-9
    )


def test_every_value_is_plain():
    found = classification(torch.randn(3, 2), torch.tensor([0, 1, 1]))
    assert [type(found[name]) for name in ("accuracy", "loss", "n")] == [float, float, int]
    assert all(type(value) is float for value in found["per_class"].values())


def test_mean_std():
    assert mean_std([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7.0)))
    assert mean_std([5.0]) == (5.0, 0.0)


def test_both_forgettings_by_hand() -> None:
    matrix = [[0.9], [0.7, 0.8], [0.6, 0.9, 1.0]]
    # L2P: task 1 fell from 0.9 to 0.6, task 2 rose from 0.8 to 0.9
    assert forgetting_l2p(matrix) == pytest.approx((0.3 - 0.1) / 2)
    # CODA: after task 2, one earlier one: 0.9 − 0.7; after task 3, two: ((0.7 − 0.6) + (0.8 − 0.9))
    # / 2
    assert forgetting_coda(matrix) == pytest.approx((0.2 + 0.0) / 2)
    # two tasks: the drop of the first, undivided
    assert forgetting_coda([[0.9], [0.4, 0.8]]) == pytest.approx(0.5)
    assert forgetting_l2p([[0.5]]) == forgetting_coda([[0.5]]) == 0.0
