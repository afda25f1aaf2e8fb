"""The weights of the cells: the worst gains, and a rare one is not forgotten."""

from __future__ import annotations

import pytest
import torch
from by_group import GROUPS, Y, Z, bound
from torch.nn import functional as F

import vpt
from vpt.errors import TrainingError


# the worst group ------------------------------------------------------------------------
def test_the_worst_cell_gains_weight() -> None:
    objective = bound(vpt.WorstGroup(step=0.5))
    logits = torch.zeros(12, 3)
    logits[(Y == 1) & (Z == 1)] = torch.tensor([5.0, 0.0, 0.0])
    each = F.cross_entropy(logits, Y, reduction="none")
    cells = torch.stack([each[(c == Y) & (g == Z)].mean() for c in range(3) for g in range(2)])
    found = objective.losses(logits, Y, Z)["cross_entropy"]
    # at first every cell counts alike
    assert float(found) == pytest.approx(float(cells.mean()), rel=1e-5)
    objective.combine({})
    weights = torch.softmax(0.5 * cells, 0)
    torch.testing.assert_close(objective.weights.flatten(), weights)
    assert float(objective.losses(logits, Y, Z)["cross_entropy"]) == pytest.approx(
        float((weights * cells).sum()), rel=1e-5
    )


def test_a_rare_cell_is_not_forgotten_for_being_absent_from_most_batches() -> None:
    y, z = (
        torch.tensor([0, 1]).repeat_interleave(100),
        torch.tensor([0] * 98 + [1, 1] + [0, 0] + [1] * 98),
    )
    objective = vpt.WorstGroup(step=0.1)
    objective.bind(y.tolist(), z.tolist(), ["a", "b"], GROUPS)
    rare = y != z
    logits = torch.zeros(200, 2)
    logits[rare] = torch.where(y[rare] == 0, -2.0, 2.0)[:, None] * torch.tensor([1.0, -1.0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        batch = torch.randperm(200, generator=generator)[:16]
        objective.losses(logits[batch], y[batch], z[batch])
        objective.combine({})
    assert float(objective.weights[0, 1] + objective.weights[1, 0]) > 0.95


def test_its_strength_is_the_step() -> None:
    assert vpt.WorstGroup.of(0.3, "dp").config() == {"step": 0.3}
    with pytest.raises(TrainingError, match="step=True"):
        vpt.WorstGroup(step=True)
