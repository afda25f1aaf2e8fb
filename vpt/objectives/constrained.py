"""The penalty on the gap with a constraint in place of its strength: one run instead of a grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.errors import TrainingError
from vpt.objectives.base import Gradients, register
from vpt.objectives.gap_penalty import GapPenalty
from vpt.sites import Config

LEAST, MOST = 1e-3, 1e3  # of the multiplier
RATE = 1.0


class Constrained(GapPenalty, ABC):
    """Base of both: `GapPenalty` whose strength is a Lagrange multiplier that learning sets.

    The first pass over the examples is one of cross-entropy alone, and says what the constraint is
    measured from. Then the multiplier is 1, and moves by up to exp(±rate) in a pass: after an
    update on b of n examples it is times exp(rate · b/n · slack). It is a way to aim, of what is
    learned from: in few passes the constraint is met about.
    """

    least_epochs = 2

    multiplier: Tensor
    first: Tensor
    fresh: Tensor
    drift: Tensor

    def __init__(self, strength: float, criterion: str, rate: float = RATE) -> None:
        super().__init__(strength, criterion)
        if not 0 < rate <= MOST:
            raise TrainingError(f"Found rate={rate}; needed is a number above 0.")
        self.rate = rate

    def config(self) -> Config:
        """Everything it was made with."""
        return super().config() | {"rate": self.rate}

    @property
    def weight(self) -> float:
        """The multiplier; 0 as long as the first pass lasts."""
        return float(self.multiplier) if self.known else 0.0

    @property
    def known(self) -> bool:
        """Whether the first pass is over."""
        return not bool(self.first.isnan().any())

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Start without anything to measure from."""
        super().bind(y, group, classes, group_names)
        self.register_buffer("multiplier", torch.ones(()))
        # the loss of each example at its first sight; (loss, times) of this update
        self.register_buffer("first", torch.full((len(y),), math.nan))
        self.register_buffer("fresh", torch.zeros(len(y), 2))
        # the running estimates of (loss beyond the first, squared gaps in the first pass)
        self.register_buffer("drift", torch.zeros(2))

    def statistics(self) -> list[Tensor]:
        """The sums of this update."""
        return [self.counted, self.fresh]

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → {"cross_entropy", "gap"}, as `GapPenalty`.
        Raises `TrainingError` where it is not told which examples these are.
        """
        if self.training:
            if self.batch is None:
                raise TrainingError(f"{type(self).__name__} needs the positions of its examples.")
            each = F.cross_entropy(logits.detach(), y, reduction="none").to(self.fresh)
            row = torch.stack([each, torch.ones_like(each)], 1)
            self.fresh.index_add_(0, self.batch.to(self.fresh.device), row)
        return super().losses(logits, y, group)

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """The sum of both; then the multiplier moves."""
        known = self.known
        combined = super().combine(gradients)
        seen = self.fresh[:, 1] > 0
        loss = self.fresh[:, 0] / self.fresh[:, 1].clamp_min(1)
        gap = self.gaps().square().sum() / 2 / self.classes
        if known:
            beyond = (loss - self.first)[seen].mean()
            self.drift[0].mul_(self.memory).add_((1 - self.memory) * beyond)
            rate = self.rate * self.fresh[:, 1].sum() / len(self.first)
            grown = self.multiplier * torch.exp(rate * self.slack(gap).clamp(-1, 1))
            self.multiplier.copy_(grown.clamp(LEAST, MOST))
        else:
            new = seen & self.first.isnan()
            self.first[new] = loss[new]
            self.drift[1] = gap
        self.fresh.zero_()
        return combined

    @abstractmethod
    def slack(self, gap: Tensor) -> Tensor:
        """How much more the penalty may weigh, in [−1,1] of what the constraint allows.

        gap: the running estimate of the squared gaps.
        """


@register("loss-bound", "the least gap for so much more loss")
class LossBound(Constrained):
    """The least gap at which the mean cross-entropy of the training examples is about `strength`
    above where it was in the first pass: accuracy is the constraint.

    Each example's loss is compared with its own at first sight, so that what is left of noise is
    what changed.
    """

    strengths = (0.03,)

    def __init__(self, strength: float = 0.03, criterion: str = "eo", rate: float = RATE) -> None:
        super().__init__(strength, criterion, rate)

    def slack(self, gap: Tensor) -> Tensor:
        """1 where nothing is lost yet, 0 where all that may be lost is, below 0 beyond."""
        return 1 - self.drift[0] / max(self.strength, 1e-6)


@register("gap-bound", "the least loss with so much of the gap gone")
class GapBound(Constrained):
    """The least cross-entropy at which a share `strength` of the gap in mean probabilities that was
    there in the first pass is gone: fairness is the constraint.
    """

    strengths = (0.25, 0.5, 0.75)

    def __init__(self, strength: float = 0.5, criterion: str = "eo", rate: float = RATE) -> None:
        super().__init__(strength, criterion, rate)
        if self.strength > 1:
            raise TrainingError(
                f"Found strength={strength}; needed is the share of the gap that must go, in"
                " [0, 1]."
            )

    def slack(self, gap: Tensor) -> Tensor:
        """Above 0 as long as more than the allowed share of the first pass's gap is left."""
        allowed = (1 - self.strength) ** 2 * self.drift[1]
        return (gap - allowed) / self.drift[1].clamp_min(1e-12)
