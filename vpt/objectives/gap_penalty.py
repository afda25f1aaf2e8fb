"""A penalty on the gap between the groups' mean predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.errors import TrainingError
from vpt.objectives.base import Gradients, register
from vpt.objectives.by_group import ByGroup, given
from vpt.sites import Config


@register("penalty", "on the gap")
class GapPenalty(ByGroup):
    """Cross-entropy plus `strength` times the squared gap between the groups' mean soft
    predictions.

    With m[s,z,c] the mean probability of class c over the examples of stratum s (each label for
    equalized odds, all for demographic parity) and group z: Σ_s Σ_{z<z'} Σ_c (m[s,z,c] −
    m[s,z',c])² / C. A batch says little about small groups, so the gap comes from a running
    estimate over about 1 / (1 − memory) updates; its gradient, 2 · gap · ∇m, is a mean over
    examples, and the same however an update is cut into micro-batches and processes.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.3, 1.0, 3.0, 10.0, 30.0)
    seen: Tensor
    counted: Tensor

    def __init__(self, strength: float = 1.0, criterion: str = "eo", memory: float = 0.9) -> None:
        super().__init__(strength, criterion)
        if not 0 <= memory < 1:
            raise TrainingError(f"Found memory={memory}; needed is a number in [0, 1).")
        self.memory = memory

    @property
    def weight(self) -> float:
        """Of the penalty."""
        return self.strength

    def config(self) -> Config:
        """Everything it was made with."""
        return super().config() | {"memory": self.memory}

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Start without an estimate: the first update is one of cross-entropy alone."""
        super().bind(y, group, classes, group_names)
        # probabilities summed by stratum and group, and (last) how many; over the past, and in this
        # update
        self.register_buffer("seen", torch.zeros(*self.shares.shape, self.classes + 1))
        self.register_buffer("counted", torch.zeros_like(self.seen))

    def statistics(self) -> list[Tensor]:
        """The sums of this update."""
        return [self.counted]

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → {"cross_entropy", "gap"}; "gap" has the
        penalty's gradient and size.
        """
        soft, cell = torch.softmax(logits, 1), (self.stratum(y), given(group))
        if self.training:
            row = torch.cat([soft.detach(), torch.ones_like(soft[:, :1])], 1)
            self.counted.index_put_(cell, row.to(self.counted), accumulate=True)
        gaps = self.gaps()
        # of the penalty, in this example's probabilities
        slope = 2 * gaps.sum(2)[cell] / self.shares[cell][:, None]
        penalty = (soft * slope).sum(1).mean() - gaps.square().sum() / 2
        return {
            "cross_entropy": F.cross_entropy(logits, y),
            "gap": self.weight / self.classes * penalty,
        }

    def gaps(self) -> Tensor:
        """The running estimate of m[s,z,c] − m[s,z',c] as `[S,Z,Z,C]`; 0 where either is not
        known.
        """
        sums, counts = self.seen[..., :-1], self.seen[..., -1:]
        known, mean = counts > 0, sums / counts.clamp_min(1e-12)
        return (mean[:, :, None] - mean[:, None]) * (known[:, :, None] & known[:, None])

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The sum of both; what was counted in this update joins the estimate."""
        self.seen.mul_(self.memory).add_(self.counted)
        self.counted.zero_()
        return super().combine(gradients)
