"""What training minimises: named losses, and how their gradients combine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import TrainingError
from vpt.sites import Config, Registry

# loss name → part that learns ("prompt", "readout", "objective") → its gradient as one flat vector
Gradients = dict[str, dict[str, Tensor]]


class Objective(nn.Module):
    """Base of all objectives. `fit` takes the gradient of every named loss with respect to prompt,
    readout and the objective's own parameters, accumulates, unscales and averages each over
    processes, and only then asks `combine` for the direction of the update, once.

    keeps_best: whether the epoch of least cross-entropy on validation is kept, or the last one.
    least_epochs: with fewer it does nothing of its own. batch: positions `[B]` of the training
        examples whose scores come next, for objectives that hold something for each.
    """

    keeps_best = True
    least_epochs = 1
    batch: Tensor | None = None

    def bind(
        self,
        y: Sequence[int],
        group: Sequence[int] | None,
        classes: Sequence[str],
        group_names: Sequence[str] | None,
    ) -> None:
        """Get to know the training examples `[n]` before training. Raises `TrainingError` where
        they cannot serve.
        """

    def config(self) -> Config:
        """What it was made with; a run goes on only with the same."""
        return {}

    def optimizer(self) -> torch.optim.Optimizer | None:
        """A new optimizer of its own parameters, which makes one step per update; None where it has
        none.
        """
        return None

    def statistics(self) -> list[Tensor]:
        """Buffers that `losses` counts up in training; they are added over processes before
        `combine`.
        """
        return []

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → named scalar losses, each a mean over the
        batch; the first is shown.
        """
        return {}

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """Gradients by loss and part → one flat gradient per part. Here: their sum."""
        total: dict[str, Tensor] = {}
        for parts in gradients.values():
            for part, gradient in parts.items():
                total[part] = total[part] + gradient if part in total else gradient
        return total


OBJECTIVES: Registry[Objective] = Registry(
    "objective", TrainingError
)  # the text is that of a way to make a model fairer
register = OBJECTIVES.register
