"""Plain classification, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from vpt.errors import TrainingError
from vpt.objectives import Classification

LOGITS = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]]))
Y = torch.tensor([0, 2])


def test_cross_entropy_by_hand():
    losses = Classification().losses(LOGITS, Y)
    assert list(losses) == ["cross_entropy"]
    assert float(losses["cross_entropy"]) == pytest.approx(
        -(math.log(0.7) + math.log(0.25)) / 2, rel=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.1, 0.5, 0.99])
def test_label_smoothing_by_hand(smoothing):
    target = (1 - smoothing) * torch.eye(3)[Y] + smoothing / 3
    expected = -(target * LOGITS).sum(1).mean()
    torch.testing.assert_close(
        Classification(smoothing).losses(LOGITS, Y)["cross_entropy"], expected
    )


def test_the_gradient_is_probability_minus_target():
    logits = LOGITS.clone().requires_grad_()
    Classification().losses(logits, Y)["cross_entropy"].backward()
    torch.testing.assert_close(logits.grad, (LOGITS.exp() - torch.eye(3)[Y]) / 2)


def test_groups_change_nothing():
    one, two = (
        Classification().losses(LOGITS, Y, group)["cross_entropy"]
        for group in (None, torch.tensor([1, 0]))
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2, math.nan, math.inf])
def test_other_smoothings_are_refused(smoothing):
    with pytest.raises(
        TrainingError, match=rf"label_smoothing={smoothing}; needed is a number in \[0, 1\)"
    ):
        Classification(smoothing)
