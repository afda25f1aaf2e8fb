"""A learned pattern under a mask that a small network makes for each sample (SMM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.full import within
from vpt.prompts.pixels import PixelPrompt, space_of, start
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config

WIDTHS = (8, 16, 32, 64)  # of the convolutions (SMM, appendix A: five layers for inputs of 224)


@register("smm:POOLS", "a pattern under a mask that a small CNN makes for each sample (SMM)")
class SampleMask(PixelPrompt):
    """x' = x + δ ⊙ up(f(x)), f a small CNN with one mask value per channel and patch (Cai et al.
    ICML 2024, equation 4).

    Here f sees, and δ changes, the image in [0,1]; in the authors' code it is the normalised image,
    and δ has no bound.
    pools: the network halves its map so often; a mask value covers 2^pools × 2^pools pixels, copied
        without smoothing. δ = bound · tanh(pixels). pixels: parameter of the input's shape. f: 3×3
        convolutions of 8, 16, 32 and 64 channels with batch norm and ReLU, and one to the masks;
        its running statistics are kept with the prompt. Raises `PromptError` for a small input.
    """

    def __init__(
        self,
        shape: Sequence[int],
        pools: int = 3,
        bound: float | None = 1.0,
        base: float = 0.0,
        unit: float = 1.0,
    ) -> None:
        super().__init__(shape, bound, base, unit)
        whole(PromptError, pools=pools)
        if pools > len(WIDTHS) or min(self.shape[-2:]) < 2 ** (pools + 1):
            raise PromptError(
                f"Found pools={pools} for an input of {list(self.shape[-2:])}; needed are at most"
                f" {len(WIDTHS)}, and an input of at least {2 ** (pools + 1)} in both directions."
            )
        self.pools = pools
        self.pixels = nn.Parameter(torch.zeros(self.shape))
        channels = self.shape[0] if self.is_image else 1
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((channels, *WIDTHS), WIDTHS, strict=False)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            layers += [nn.MaxPool2d(2)] if i < pools else []
        self.network = nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], channels, 3, padding=1))

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        pools: int = 3,
        *,
        bound: float | str | None = "default",
        init: str = "zeros",
        seed: int = 0,
    ) -> SampleMask:
        """For a backbone's input; the network's weights are drawn from `seed`. bound: 1 on images
        and 3 σ on sound by default.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            prompt = cls(pools=pools, **space_of(backbone, bound))
        start(prompt.pixels, init, seed)
        return prompt

    covered = 1.0  # the share of the input's area that it may take

    def masks(self, x: Tensor) -> Tensor:
        """Inputs `[B,C,H,W]` or `[B,frames,bins]` → masks of the same shape, constant over each
        patch.
        """
        seen = (x if self.is_image else x.unsqueeze(1)).to(self.pixels.dtype)
        seen = (seen - self.base) / self.unit
        found = F.interpolate(self.network(seen), size=seen.shape[-2:], mode="nearest")
        return found if self.is_image else found.squeeze(1)

    def _act(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return (
            x + within((self.delta(self.pixels) * self.masks(x)).to(x.dtype), x, lengths),
            lengths,
        )

    def config(self) -> Config:
        """Depth of the network, and the space it acts in."""
        return {"pools": self.pools, **self.space()}

    def describe(self) -> str:
        """One line for people."""
        side = 2**self.pools
        return (
            f"a pattern over the whole input under masks of {side}×{side} patches, made for each"
            " sample"
        )
