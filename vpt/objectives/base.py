"""What training minimises: named losses, and how their gradients combine."""

from __future__ import annotations

from torch import Tensor, nn

# loss name → part of the model ("prompt", "readout") → its gradient as one flat vector
Gradients = dict[str, dict[str, Tensor]]


class Objective(nn.Module):
    """Base of all objectives. `fit` takes the gradient of every named loss with respect to prompt and readout,
    accumulates, unscales and averages each over processes, and only then asks `combine` for the update's direction.
    """

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]`, groups `[B]` → named scalar losses, each a mean over the batch."""
        return {}

    def combine(self, gradients: Gradients) -> dict[str, Tensor]:
        """Gradients by loss and part → one flat gradient per part. Here: their sum."""
        total: dict[str, Tensor] = {}
        for parts in gradients.values():
            for part, gradient in parts.items():
                total[part] = total[part] + gradient if part in total else gradient
        return total
