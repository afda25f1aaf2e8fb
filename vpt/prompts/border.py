"""A learned frame around the input: visual prompting and model reprogramming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from vpt.errors import PromptError
from vpt.errors.needs import whole
from vpt.prompts.pixels import PixelPrompt, space_of, start
from vpt.prompts.registry import register
from vpt.sites import BackboneLike, Config

Fit = Literal["shrink", "cover"]


@register("border:WIDTH", "a frame; the picture shrinks inside it (FairReprogram)")
class Border(PixelPrompt):
    """A learned frame of `width` pixels (or, for sound, `width` time frames before and after the
    clip).

    fit="shrink": the image is resized to fit inside the frame and nothing is covered, x' =
    pad(resize(x)) + M ⊙ δ (FairReprogram, Zhang et al. 2022); a short clip moves into its padding
    and is only shortened as far as it must. fit="cover": δ is added over the edge, x' = x + M ⊙ δ
    (after Bahng et al. 2022; theirs is added to the normalised image, unbounded, from N(0, 1); here
    it is in image units, before mean and standard deviation, from 0). δ = bound · tanh(pixels).
    pixels: parameter `[C, pixels of the frame]` (top, bottom, left, right) or `[2·width, bins]`.
    Raises `PromptError`.
    """

    def __init__(
        self,
        width: int,
        shape: Sequence[int],
        fit: Fit = "shrink",
        bound: float | None = 1.0,
        base: float = 0.0,
        unit: float = 1.0,
    ) -> None:
        super().__init__(shape, bound, base, unit)
        whole(PromptError, width=width)
        if fit not in ("shrink", "cover"):
            raise PromptError(
                f"Found fit={fit!r}; needed is 'shrink' (resize inside) or 'cover' (add over the"
                " edge)."
            )
        sides = self.shape[1:] if self.is_image else self.shape[:1]
        if 2 * width >= min(sides):
            what = "pixels" if self.is_image else "frames"
            raise PromptError(
                f"A border {width} {what} wide leaves nothing of an input of {min(sides)}; use less"
                f" than {min(sides) / 2:g}."
            )
        self.width = width
        self.fit = fit
        if self.is_image:
            channels, height, long = self.shape
            self.inner = (height - 2 * width, long - 2 * width)
            size = [channels, height * long - self.inner[0] * self.inner[1]]
        else:
            size = [2 * width, self.shape[1]]
        self.pixels = nn.Parameter(torch.zeros(size))

    @classmethod
    def like(
        cls,
        backbone: BackboneLike,
        width: int = 8,
        *,
        fit: Fit = "shrink",
        bound: float | str | None = "default",
        init: str = "zeros",
        seed: int = 0,
    ) -> Border:
        """A border for a backbone's input.

        backbone: whose input it is for.
        width: pixels, or time frames of sound.
        fit: "shrink" the input inside, or "cover" its edge.
        bound: of values, 1 on images and 3 σ on sound by default; None for none.
        init: "zeros", or "uniform" U(−1, 1).
        seed: of that draw.
        """
        prompt = cls(width, fit=fit, **space_of(backbone, bound))
        start(prompt.pixels, init, seed)
        return prompt

    @property
    def covered(self) -> float:
        """The share of the input's area that the frame takes, in [0,1]."""
        if self.is_image:
            return 1 - self.inner[0] * self.inner[1] / (self.shape[1] * self.shape[2])
        return 2 * self.width / self.shape[0]

    def around(self, inner: Tensor) -> Tensor:
        """The frame around `inner` `[B,C,H−2w,W−2w]` → `[B,C,H,W]`."""
        channels, _, long = self.shape
        w, flat = self.width, self.delta(self.pixels)
        if self.fit == "shrink":
            flat = flat + self.base
        top, bottom, left, right = flat.to(inner.dtype).split(
            [w * long, w * long, w * self.inner[0], w * self.inner[0]], dim=1
        )
        batch = inner.shape[0]
        rows = [
            edge.reshape(1, channels, w, long).expand(batch, -1, -1, -1) for edge in (top, bottom)
        ]
        sides = [
            edge.reshape(1, channels, self.inner[0], w).expand(batch, -1, -1, -1)
            for edge in (left, right)
        ]
        return torch.cat([rows[0], torch.cat([sides[0], inner, sides[1]], dim=3), rows[1]], dim=2)

    def _act(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self.is_image:
            whole = torch.full((x.shape[0],), x.shape[1], device=x.device)
            return self._around_clip(x, whole if lengths is None else lengths)
        if self.fit == "cover":
            return x + self.around(x.new_zeros(1, self.shape[0], *self.inner)), lengths
        return self.around(tvf.resize(x, list(self.inner), antialias=True)), lengths

    def _around_clip(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`[B,T,F]`: the first rows go before the clip, the last behind it; the clip keeps its
        length where it can.
        """
        w, size = self.width, x.shape[1]
        rows = self.delta(self.pixels).to(x.dtype)
        t = torch.arange(size, device=x.device).expand(x.shape[0], -1)
        n = lengths.view(-1, 1)
        if self.fit == "cover":
            table = torch.cat([rows, torch.zeros_like(rows[:1])])
            before, behind = (
                torch.where(t < w, t, 2 * w),
                torch.where((t >= n - w) & (t < n), t - n + 2 * w, 2 * w),
            )
            return x + table[before] + table[behind.clamp(min=0)], lengths
        m = n.clamp(max=size - 2 * w)
        source = ((t - w + 0.5) * (n / m) - 0.5).clamp(min=0).minimum(n - 1.0)
        low = source.floor().long()
        clip = torch.lerp(
            _rows(x, low),
            _rows(x, (low + 1).minimum(n - 1)),
            (source - low).unsqueeze(2).to(x.dtype),
        )
        framed = (rows + self.base)[torch.where(t < w, t, t - m).clamp(0, 2 * w - 1)]
        padding = _rows(x, (t - 2 * w).clamp(min=0))
        inside = ((t >= w) & (t < w + m)).unsqueeze(2)
        frame = (t < m + 2 * w).unsqueeze(2)
        return torch.where(inside, clip, torch.where(frame, framed, padding)), (m + 2 * w).squeeze(
            1
        )

    def canvas(self) -> Tensor:
        """The border alone, in input units, zero inside: `[C,H,W]`, or `[2·width, bins]` for
        sound.
        """
        if not self.is_image:
            return (self.delta(self.pixels) + (self.base if self.fit == "shrink" else 0)).detach()
        return self.around(self.pixels.new_zeros(1, self.shape[0], *self.inner))[0].detach()

    def config(self) -> Config:
        """Width, fit and the space it acts in."""
        return {"width": self.width, "fit": self.fit, **self.space()}

    def describe(self) -> str:
        """One line for people: the width and the covered share."""
        if self.is_image:
            how = (
                f"the image shrunk to {self.inner[0]}×{self.inner[1]} inside"
                if self.fit == "shrink"
                else "added over the edge"
            )
            return (
                f"a border {self.width} pixels wide, {self.covered:.0%} of the"
                f" {self.shape[1]}×{self.shape[2]} input, {how}"
            )
        how = (
            "put around the clip, in its padding first"
            if self.fit == "shrink"
            else "added over the clip's ends"
        )
        # a waveform is a spectrogram of one bin
        frames = "samples" if self.shape[1] == 1 else "time frames"
        total = f"{self.shape[0]} {frames.removeprefix('time ')}"
        return (
            f"a border of {self.width} {frames} before and behind, {self.covered:.0%} of {total},"
            f" {how}"
        )


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` `[B,T]` of `x` `[B,T,F]`."""
    return x.gather(1, index.clamp(0, x.shape[1] - 1).unsqueeze(2).expand(-1, -1, x.shape[2]))
