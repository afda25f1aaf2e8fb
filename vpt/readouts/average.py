"""The mean of several readouts' probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.readouts.base import Readout
from vpt.readouts.named import Named
from vpt.readouts.registry import build, register
from vpt.sites import Config


@register("", "the mean of several readouts' probabilities")
class Average(Readout):
    """Scores are the logarithm of the mean over parts of their probabilities.

    parts: linear readouts of the same classes, each of other features. Raises `PromptError` for
        fewer than two, or for those that do not go together.
    """

    trainable = False

    def __init__(self, parts: Sequence[Readout | Config]) -> None:
        made = [
            part if isinstance(part, Readout) else build(part["name"], part["config"])
            for part in parts
        ]
        if len(made) < 2 or any(part.reads != "features" for part in made):
            raise PromptError(
                f"Found Average of {[type(part).__name__ for part in made]}; needed are two or more"
                " readouts of features."
            )
        kinds = {(part.count, tuple(part.classes or ())) for part in made}
        if len(kinds) > 1:
            raise PromptError("Average needs readouts of the same classes, in the same order.")
        super().__init__(made[0].classes or made[0].count)
        self.parts = nn.ModuleList(made)
        self.named = Named("+".join(part.named.text for part in made))
        self.widths = [int(part.features) for part in made]  # type: ignore[arg-type]
        self.features = sum(self.widths)

    def forward(self, out: Tensor) -> Tensor:
        """Features of all parts side by side `[B,F]` → `[B,C]`."""
        pieces = out.split(self.widths, dim=1)
        logs = [
            torch.log_softmax(part(piece), dim=1)
            for part, piece in zip(self.parts, pieces, strict=True)
        ]
        return torch.logsumexp(torch.stack(logs), dim=0) - math.log(len(logs))

    def config(self) -> Config:
        """The parts' names and configs."""
        parts: list[Any] = list(self.parts)
        return {"parts": [{"name": type(p).__name__, "config": p.config()} for p in parts]}
