"""A readout with a correction of its scores, linear in what it reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.readouts.base import Readout
from vpt.readouts.registry import build, register
from vpt.sites import BackboneLike, Config


@register("", "a readout with a correction added to its scores (vpt correct)")
class Corrected(Readout):
    """The scores of another readout plus a linear function of the features that it reads.

    base: a readout of features `[B,F]`. Starts as the base is; `vpt.correct` sets `weight` `[C,F]`
        and `bias` `[C]`. Raises `PromptError` for a readout of anything else.
    """

    trainable = False
    weight: Tensor
    bias: Tensor

    def __init__(self, base: Readout | Config) -> None:
        made = base if isinstance(base, Readout) else build(base["name"], base["config"])
        width = getattr(made, "features", None)
        if made.reads != "features" or made.task_names or not isinstance(width, int):
            raise PromptError(
                f"Found Corrected of {type(made).__name__}; needed is a readout of features, for"
                " example vpt.Linear."
            )
        super().__init__(made.classes or made.count)
        self.base = made
        self.named = made.named
        self.features = width
        count = self.count or 0
        self.register_buffer("weight", torch.zeros(count, width))
        self.register_buffer("bias", torch.zeros(count))

    def bind(self, backbone: BackboneLike) -> None:
        """As the base has it."""
        self.base.bind(backbone)

    def forward(self, out: Tensor) -> Tensor:
        """Features `[B,F]` → `[B,C]`."""
        return self.base(out) + nn.functional.linear(out.to(self.weight), self.weight, self.bias)

    @torch.no_grad()
    def add(self, weight: Tensor, bias: Tensor) -> None:
        """Add to the correction: `[C,F]`, `[C]`."""
        self.weight += weight.to(self.weight)
        self.bias += bias.to(self.bias)

    def config(self) -> Config:
        """The base's name and config."""
        return {"base": {"name": type(self.base).__name__, "config": self.base.config()}}
