"""Distillation by hand, with classes that the teacher does not know, and its gradient."""

from __future__ import annotations

from math import inf, log

import pytest
import torch
from torch.nn import functional as F

import vpt
from vpt.errors import TrainingError


def test_by_hand() -> None:
    targets = torch.tensor([[0.0, log(3.0), -inf], [-inf, -inf, 0.0]])
    objective = vpt.Distillation(targets, weight=0.5)
    objective.bind([1, 2], None, ["a", "b", "c"], None)
    objective.batch = torch.tensor([0])
    logits = torch.tensor([[0.0, 0.0, -inf]], requires_grad=True)
    losses = objective.losses(logits, torch.tensor([1]))
    needed = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)  # the teacher says 1/4 and 3/4
    assert losses["cross_entropy"].item() == pytest.approx(log(2.0))
    assert losses["distillation"].item() == pytest.approx(0.5 * needed)
    gradient = torch.autograd.grad(losses["distillation"], logits)[0]
    assert torch.allclose(gradient, 0.5 * torch.tensor([[0.5 - 0.25, 0.5 - 0.75, 0.0]]))


def test_temperature_against_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    targets, logits = torch.randn(6, 4, generator=generator), torch.randn(3, 4, generator=generator)
    objective = vpt.Distillation(targets, weight=0.9, temperature=2.0)
    objective.batch = torch.tensor([5, 0, 3])
    found = objective.losses(logits, torch.tensor([0, 1, 2]))["distillation"]
    needed = F.kl_div(
        F.log_softmax(logits / 2, 1), F.softmax(targets[[5, 0, 3]] / 2, 1), reduction="batchmean"
    )
    assert torch.allclose(found, 0.9 * 4 * needed, atol=1e-6)


def test_a_teacher_that_says_the_same_asks_for_nothing() -> None:
    targets = torch.randn(2, 3)
    objective = vpt.Distillation(targets)
    objective.batch = torch.tensor([0, 1])
    logits = targets.clone().requires_grad_(True)
    loss = objective.losses(logits, torch.tensor([0, 1]))["distillation"]
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.autograd.grad(loss, logits)[0].abs().max() < 1e-6


def test_wrong_input() -> None:
    with pytest.raises(TrainingError, match="weight=-1"):
        vpt.Distillation(torch.zeros(2, 2), weight=-1)
    with pytest.raises(TrainingError, match=r"shape \[2, 2\] for 3 examples"):
        vpt.Distillation(torch.zeros(2, 2)).bind([0, 1, 0], None, ["a", "b"], None)


def test_its_targets_are_part_of_a_run_but_not_of_its_checkpoint() -> None:
    one, two = vpt.Distillation(torch.zeros(2, 2)), vpt.Distillation(torch.ones(2, 2))
    assert one.config() != two.config()
    assert not one.state_dict()
