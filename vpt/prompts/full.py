"""A learned pattern over the whole input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.prompts.pixels import PixelPrompt, space_of, start
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config


@register("full", "a pattern added to the whole input, in image units")
class Full(PixelPrompt):
    """A learned pattern added to the whole input, x' = x + δ (the "watermark" of Bahng et al.
    2022), δ = bound · tanh(pixels).

    Here δ is in image units, before mean and standard deviation, and starts at 0; Bahng et al. add
    it after them, unbounded, from N(0, 1): bound=None, and a pattern divided by the standard
    deviation, is theirs.
    pixels: parameter of the input's shape, `[C,H,W]` or `[frames,bins]`. On sound it is added to
        the clip, not to its padding.
    """

    def __init__(
        self, shape: Sequence[int], bound: float | None = 1.0, base: float = 0.0, unit: float = 1.0
    ) -> None:
        super().__init__(shape, bound, base, unit)
        self.pixels = nn.Parameter(torch.zeros(self.shape))

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        *,
        bound: float | str | None = "default",
        init: str = "zeros",
        seed: int = 0,
    ) -> Full:
        """A pattern for a backbone's input. bound: 1 on images and 3 σ on sound by default; None
        for no bound.
        """
        prompt = cls(**space_of(backbone, bound))
        start(prompt.pixels, init, seed)
        return prompt

    covered = 1.0  # the share of the input's area that it takes

    def _act(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return x + within(self.delta(self.pixels).to(x.dtype), x, lengths), lengths

    def config(self) -> Config:
        """The space it acts in."""
        return self.space()

    def describe(self) -> str:
        """One line for people."""
        return f"a pattern added to the whole input ({'×'.join(map(str, self.shape[-2:]))})"


def within(delta: Tensor, x: Tensor, lengths: Tensor | None) -> Tensor:
    """`delta` `[…,frames,bins]` where clips `[B,frames,bins]` are valid, zero in their padding;
    images as they are.
    """
    if lengths is None:
        return delta
    return delta * (torch.arange(x.shape[1], device=x.device) < lengths.view(-1, 1)).unsqueeze(2)
