"""The penalty against its definition, and what its estimate remembers."""

from __future__ import annotations

import pytest
import torch
from by_group import Y, Z, bound

import vpt
from vpt.errors import TrainingError


# the penalty ----------------------------------------------------------------------------
def penalty(logits: torch.Tensor, criterion: str) -> torch.Tensor:
    """Its definition, over all of Y and Z."""
    soft, total = logits.softmax(1), torch.zeros(())
    for keep in [c == Y for c in range(3)] if criterion == "eo" else [Y >= 0]:
        gap = soft[keep & (Z == 0)].mean(0) - soft[keep & (Z == 1)].mean(0)
        total = total + gap.square().sum() / 3
    return total


@pytest.mark.parametrize("criterion", ["dp", "eo"])
def test_with_the_gap_known_the_penalty_and_its_gradient_are_exact(criterion: str) -> None:
    objective = bound(vpt.GapPenalty(2.0, criterion, memory=0.0))
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    first = objective.losses(logits, Y, Z)
    assert first["gap"] == 0  # nothing is known yet
    objective.combine({"cross_entropy": {}, "gap": {}})
    found = objective.losses(logits, Y, Z)["gap"]
    expected = 2 * penalty(logits, criterion)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        torch.autograd.grad(found, logits)[0], torch.autograd.grad(expected, logits)[0]
    )


def test_the_estimate_remembers_and_skips_what_it_has_not_seen() -> None:
    objective = bound(vpt.GapPenalty(1.0, "dp", memory=0.5))
    for value in (0.0, 2.0):
        # group m only
        objective.losses(
            torch.tensor([[value, 0, 0]] * 2), torch.tensor([0, 0]), torch.tensor([0, 0])
        )
        objective.combine({})
    assert objective.gaps().abs().sum() == 0
    objective.losses(torch.zeros(1, 3), torch.tensor([0]), torch.tensor([1]))
    objective.combine({})
    late = torch.tensor([2.0, 0, 0]).softmax(0)[0]
    mean = (0.5 * 1 / 3 + late) / 1.5  # of the first update half, and of both their counts
    assert float(objective.gaps()[0, 0, 1, 0]) == pytest.approx(float(mean - 1 / 3), abs=1e-6)


def test_settings_that_are_none() -> None:
    for settings in ({"strength": float("nan")}, {"memory": 1.0}):
        with pytest.raises(TrainingError, match="needed is"):
            vpt.GapPenalty(**settings)
