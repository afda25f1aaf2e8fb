"""Plain classification."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vpt.errors import TrainingError
from vpt.objectives.base import Objective, register
from vpt.sites import Config


@register()
class Classification(Objective):
    """Cross-entropy with label smoothing in [0,1) (Szegedy et al. 2016). Raises `TrainingError` for
    another smoothing.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise TrainingError(
                f"Found label_smoothing={label_smoothing}; needed is a number in [0, 1)."
            )
        self.label_smoothing = label_smoothing

    def config(self) -> Config:
        """The smoothing."""
        return {"label_smoothing": self.label_smoothing}

    def losses(self, logits: Tensor, y: Tensor, group: Tensor | None = None) -> dict[str, Tensor]:
        """Scores `[B,C]`, labels `[B]` → {"cross_entropy"}."""
        return {"cross_entropy": F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)}
