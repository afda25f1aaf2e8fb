"""A few labels and groups, to which an objective by group is bound."""

from __future__ import annotations

import torch

from vpt.objectives import ByGroup

Y, Z = (
    torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]),
    torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 1, 0]),
)
CLASSES, GROUPS = ["a", "b", "c"], ["m", "w"]


def bound(objective: ByGroup) -> ByGroup:
    objective.bind(Y.tolist(), Z.tolist(), CLASSES, GROUPS)
    return objective
