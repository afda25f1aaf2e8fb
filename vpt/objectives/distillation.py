"""Learning from labels and from a teacher's scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.errors import TrainingError
from vpt.objectives.base import Objective, register
from vpt.sites import Config


@register()
class Distillation(Objective):
    """CE + weight · τ² · KL(softmax(teacher/τ) ‖ softmax(scores/τ)) (Hinton et al. 2015; weight 0.9
    in MPT, Wang et al. 2023).

    targets: the teacher's scores `[n,C]` of every training example, −inf for classes that it does
        not know. Raises `TrainingError` where they are not one row per training example.
    """

    def __init__(self, targets: Tensor, weight: float = 0.9, temperature: float = 1.0) -> None:
        super().__init__()
        if weight < 0 or temperature <= 0:
            raise TrainingError(
                f"Found weight={weight}, temperature={temperature}; needed are at least 0, and more"
                " than 0."
            )
        self.weight = weight
        self.temperature = temperature
        self.register_buffer("targets", targets, persistent=False)
        self.targets: Tensor

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Raise `TrainingError` unless there is a row of targets for each training example and
        class.
        """
        if tuple(self.targets.shape) != (len(y), len(classes)):
            raise TrainingError(
                f"Found teachers' scores of shape {list(self.targets.shape)} for {len(y)} examples"
                f" of {len(classes)} classes."
            )

    def config(self) -> Config:
        """Weight, temperature, and a hash of the targets."""
        hashed = hashlib.sha256(self.targets.cpu().numpy().tobytes()).hexdigest()[:16]
        return {"weight": self.weight, "temperature": self.temperature, "targets": hashed}

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]` → {"cross_entropy", "distillation"}; the batch's positions
        say which targets are its own.
        """
        targets = torch.zeros_like(logits)
        if self.batch is not None:
            targets = self.targets[self.batch.to(self.targets.device)]
        taught = F.softmax(targets / self.temperature, dim=1)
        unknown = taught == 0
        answered = F.log_softmax(logits / self.temperature, dim=1).masked_fill(unknown, 0.0)
        divergence = (taught * (taught.clamp(min=1e-30).log() - answered)).sum(1).mean()
        return {
            "cross_entropy": F.cross_entropy(logits, y),
            "distillation": self.weight * self.temperature**2 * divergence,
        }
