"""What prompts in the raw input share: the space they act in, its unit, and the bound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpt.errors import PromptError
from vpt.prompts.base import Prompt
from vpt.sites import BackboneLike, Config, Pixels

BOUNDS = {"image": 1.0, "sound": 3.0}


class PixelPrompt(Prompt):
    """What border and patch share: the bound, and the level and unit of the space they act in.

    shape: of one input, `[C,H,W]` or `[frames,bins]`. bound: values are base + unit · bound ·
        tanh(pixels), or base + unit · pixels when None. For images base 0 and unit 1 (tanh of
        FairReprogram, so values may leave [0,1]); for sound base is the mean and unit the standard
        deviation σ of the spectrogram.
    """

    pixels: nn.Parameter

    def __init__(self, shape: Sequence[int], bound: float | None, base: float, unit: float) -> None:
        super().__init__()
        self.shape = tuple(int(s) for s in shape)
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise PromptError(
                f"Found shape={list(shape)}; needed is [C,H,W] for images or [frames,bins] for"
                " sound."
            )
        if bound is not None and not bound > 0:
            raise PromptError(
                f"Found bound={bound!r}; needed is a positive number, or None for no bound."
            )
        self.bound = bound
        self.base = base
        self.unit = unit

    @property
    def is_image(self) -> bool:
        """Images `[C,H,W]` rather than spectrograms `[frames,bins]`."""
        return len(self.shape) == 3

    def delta(self, pixels: Tensor) -> Tensor:
        """What the parameters say in input units, without the base level."""
        return self.unit * (pixels if self.bound is None else self.bound * torch.tanh(pixels))

    def sites(self) -> tuple[Pixels, ...]:
        """One site on the raw input."""
        return (Pixels(self.apply_to),)

    def apply_to(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(input, valid frames) → the same with the prompt in it, as new tensors; in a video
        `[B,frames,C,H,W]` in every picture.

        Raises `PromptError` on another shape.
        """
        video = self.is_image and x.ndim == 5
        if tuple(x.shape[1 + video :]) != self.shape:
            raise PromptError(
                f"Found inputs {list(x.shape)} under a prompt made for"
                f" [B,{','.join(map(str, self.shape))}]."
            )
        if video:
            return self._act(x.flatten(0, 1), None)[0].unflatten(0, x.shape[:2]), lengths
        return self._act(x, lengths)

    def _act(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return x, lengths

    def canvas(self) -> Tensor:
        """The prompt alone, in input units: `[C,H,W]` or `[frames,bins]`."""
        return self.delta(self.pixels).detach()

    def space(self) -> Config:
        """What rebuilds the space the prompt acts in."""
        return {
            "shape": list(self.shape),
            "bound": self.bound,
            "base": self.base,
            "unit": self.unit,
        }


def space_of(backbone: BackboneLike, bound: float | str | None) -> Config:
    """The space of a backbone's input. bound "default": 1 on images, 3 σ on sound."""
    inputs = backbone.inputs
    limit = BOUNDS[inputs.kind] if bound == "default" else bound
    return {
        "shape": list(inputs.shape[-3:]),
        "bound": limit,
        "base": inputs.base,
        "unit": inputs.unit,
    }


@torch.no_grad()
def start(pixels: Tensor, init: str, seed: int) -> None:
    """Initialise in place: "zeros", or "uniform" U(−1,1) as FairReprogram does. Raises
    `PromptError` for anything else.
    """
    if init == "uniform":
        pixels.copy_(
            torch.rand(pixels.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        )
    elif init != "zeros":
        raise PromptError(
            f"Found init={init!r} for a pixel prompt; needed is 'zeros' or 'uniform' (U(−1,1))."
        )
