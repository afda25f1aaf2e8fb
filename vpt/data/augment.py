"""Random changes to a batch of raw images that keep their class, drawn from a generator so that runs repeat."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.errors import DataError

AUGMENTS = ("none", "crop", "flip-crop")
SHIFT = 1 / 16  # of the side: 4 pixels of 64, 14 of 224


def augment(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Images `[B,C,H,W]` or videos `[B,frames,C,H,W]` → the same, randomly changed.

    "crop": shifted by up to 1/16 of a side, edges mirrored. "flip-crop": that, and mirrored half of the time.

    The input is not changed. Raises `DataError` for an unknown name, or for anything but images.
    """
    if how == "none" or (isinstance(x, Tensor) and len(x) == 0):
        return x
    if how not in AUGMENTS:
        raise DataError(f"Found augment={how!r}; needed is one of {', '.join(AUGMENTS)}.")
    if isinstance(x, Tensor) and x.ndim == 5:  # every picture of a video alike
        return augment(x.flatten(1, 2), how, generator).unflatten(1, x.shape[1:3])
    if not isinstance(x, Tensor) or x.ndim != 4:
        raise DataError(f"augment={how!r} is for images; use augment='none' for sound.")
    batch, _, height, width = x.shape
    by = [max(1, round(SHIFT * side)) for side in (height, width)]
    padded = F.pad(x, (by[1], by[1], by[0], by[0]), mode="reflect")
    down, across = (torch.randint(2 * b + 1, (batch,), generator=generator).tolist() for b in by)
    flips = (torch.rand(batch, generator=generator) < 0.5).tolist() if how == "flip-crop" else [False] * batch
    rows = [padded[i, :, down[i] : down[i] + height, across[i] : across[i] + width] for i in range(batch)]
    return torch.stack([row.flip(-1) if flip else row for row, flip in zip(rows, flips, strict=True)])
