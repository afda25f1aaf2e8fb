"""The worst label × group cell first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.objectives.base import Gradients, register
from vpt.objectives.by_group import ByGroup, given, rate
from vpt.sites import Config


@register("worst", "group DRO")
class WorstGroup(ByGroup):
    """The worst label × group cell first: group DRO (Sagawa et al. 2020, algorithm 1).

    Cross-entropy in which cell k weighs q[k]; after each update q[k] grows by exp(step · its mean
    loss) and is made to sum to 1. Examples are weighted by q over their cell's share, which is
    balanced sampling in expectation; step 0 is that alone. The mean loss is over the number of
    examples that a cell has in an update on average, so that rare cells do not fall behind for
    being absent from most.
    """

    strengths = (0.0, 0.01, 0.03, 0.1, 0.3)
    needs_cells = False
    weights: Tensor
    counted: Tensor

    def __init__(self, step: float = 0.05) -> None:
        super().__init__(0.0, "eo")
        self.step = rate("step", step)

    @classmethod
    def of(cls, strength: float, criterion: str) -> WorstGroup:
        """Its strength is the step; it has no criterion."""
        return cls(strength)

    def config(self) -> Config:
        """The step."""
        return {"step": self.step}

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Start with equal weights for the cells that there are."""
        super().bind(y, group, classes, group_names)
        present = (self.shares > 0).float()
        self.register_buffer("weights", present / present.sum())
        # loss summed, and how many, in this update
        self.register_buffer("counted", torch.zeros(*present.shape, 2))

    def statistics(self) -> list[Tensor]:
        """The sums of this update."""
        return [self.counted]

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → {"cross_entropy"}, weighted."""
        each, cell = F.cross_entropy(logits, y, reduction="none"), (y, given(group))
        if self.training:
            row = torch.stack([each.detach(), torch.ones_like(each)], 1)
            self.counted.index_put_(cell, row, accumulate=True)
        weights = (self.weights / self.shares.clamp_min(1e-12))[cell]
        return {"cross_entropy": (each * weights).mean()}

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The gradient as it is; then the cells are weighed anew."""
        loss = self.counted[..., 0] / (self.shares * self.counted[..., 1].sum()).clamp_min(1e-12)
        grown = self.weights * torch.exp(self.step * loss)
        self.weights.copy_(grown / grown.sum())
        self.counted.zero_()
        return super().combine(gradients)
