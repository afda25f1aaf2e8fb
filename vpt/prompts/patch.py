"""A learned square in a corner of the input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.pixels import PixelPrompt, space_of, start
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config

CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


@register("patch:SIZE", "a square that replaces a corner of the input")
class Patch(PixelPrompt):
    """A learned square in a corner, replacing what is there: x' = x ⊙ (1 − M) + M ⊙ δ
    (FairReprogram's patch).

    size: side in pixels (for sound: time frames × bins, the first frames being the top and the
        lowest bins the left).
    corner: top_left, top_right, bottom_left or bottom_right. pixels: parameter `[C,size,size]` or
        `[size,size]`.
    """

    def __init__(
        self,
        size: int,
        shape: Sequence[int],
        corner: str = "top_left",
        bound: float | None = 1.0,
        base: float = 0.0,
        unit: float = 1.0,
    ) -> None:
        super().__init__(shape, bound, base, unit)
        whole(PromptError, size=size)
        if corner not in CORNERS:
            raise PromptError(f"Found corner={corner!r}; needed is one of {', '.join(CORNERS)}.")
        if size >= min(self.shape[-2:]):
            raise PromptError(
                f"A patch of {size} hides the whole of an input of {list(self.shape[-2:])}; use a"
                " smaller size."
            )
        self.size = size
        self.corner = corner
        self.pixels = nn.Parameter(torch.zeros(*self.shape[:-2], size, size))

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        size: int = 16,
        *,
        corner: str = "top_left",
        bound: float | str | None = "default",
        init: str = "zeros",
        seed: int = 0,
    ) -> Patch:
        """A patch for a backbone's input.

        backbone: whose input it is for.
        size: of a side, in pixels, or in time frames and bins of sound.
        corner: where it lies.
        bound: of values, 1 on images and 3 σ on sound by default; None for none.
        init: "zeros", or "uniform" U(−1, 1).
        seed: of that draw.
        """
        prompt = cls(size, corner=corner, **space_of(backbone, bound))
        start(prompt.pixels, init, seed)
        return prompt

    @property
    def covered(self) -> float:
        """The share of the input's area that the patch takes, in [0,1]."""
        return self.size**2 / (self.shape[-2] * self.shape[-1])

    def _place(self) -> tuple[slice, slice]:
        height, long = self.shape[-2:]
        down = (
            slice(0, self.size)
            if self.corner.startswith("top")
            else slice(height - self.size, height)
        )
        across = (
            slice(0, self.size) if self.corner.endswith("left") else slice(long - self.size, long)
        )
        return down, across

    def _act(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        down, across = self._place()
        x = x.clone()
        x[..., down, across] = (self.base + self.delta(self.pixels)).to(x.dtype)
        return x, lengths if lengths is None else lengths.clamp(min=down.stop)

    def canvas(self) -> Tensor:
        """The patch alone, in input units, zero elsewhere: `[C,H,W]` or `[frames,bins]`."""
        canvas = self.pixels.new_zeros(self.shape)
        canvas[(..., *self._place())] = (self.base + self.delta(self.pixels)).detach()
        return canvas

    def config(self) -> Config:
        """Size, corner and the space it acts in."""
        return {"size": self.size, "corner": self.corner, **self.space()}

    def describe(self) -> str:
        """One line for people: the size and the covered share."""
        return (
            f"a {self.size}×{self.size} patch at the {self.corner.replace('_', ' ')},"
            f" {self.covered:.1%} of the input"
        )
