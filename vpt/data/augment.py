"""Random changes to a batch of raw images that keep their class, drawn from a generator so that
runs repeat.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.data.examples import Examples
from vpt.data.readers import RawInput
from vpt.errors import DataError

AUGMENTS = ("none", "crop", "flip-crop")
SHIFT = 1 / 16  # of the side: 4 pixels of 64, 14 of 224


def augment(x: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Images `[B,C,H,W]` or videos `[B,frames,C,H,W]` → the same, randomly changed.

    "crop": shifted by up to 1/16 of a side, edges mirrored. "flip-crop": that, and mirrored half of
    the time.

    The input is not changed. Raises `DataError` for an unknown name, or for anything but images.
    """
    if how == "none" or (isinstance(x, Tensor) and len(x) == 0):
        return x
    if how not in AUGMENTS:
        raise DataError(f"Found augment={how!r}; needed is one of {', '.join(AUGMENTS)}.")
    x = _images(x, how)
    if x.ndim == 5:  # every picture of a video alike
        return augment(x.flatten(1, 2), how, generator).unflatten(1, x.shape[1:3])
    batch, _, height, width = x.shape
    most_down, most_across = (max(1, round(SHIFT * side)) for side in (height, width))
    padded = F.pad(x, (most_across, most_across, most_down, most_down), mode="reflect")
    down, across = (
        torch.randint(2 * most + 1, (batch,), generator=generator).tolist()
        for most in (most_down, most_across)
    )
    flips = [False] * batch
    if how == "flip-crop":
        flips = (torch.rand(batch, generator=generator) < 0.5).tolist()
    rows = [
        padded[i, :, down[i] : down[i] + height, across[i] : across[i] + width]
        for i in range(batch)
    ]
    return torch.stack(
        [row.flip(-1) if flip else row for row, flip in zip(rows, flips, strict=True)]
    )


def _images(x: RawInput, how: str) -> Tensor:
    """The input, if it is a batch of images or videos. Raises `DataError`."""
    if not isinstance(x, Tensor) or x.ndim not in (4, 5):
        raise DataError(f"augment={how!r} is for images; use augment='none' for sound.")
    return x


def in_views(examples: Examples, how: str, count: int, seed: int) -> Examples:
    """The same images, of which each epoch sees the next of `count` views: as they are, and each
    randomly changed once.

    What a frozen model makes of a view can be kept; of one that is drawn anew each time it cannot.
    """
    places = {index: i for i, index in enumerate(examples.indices)}
    return examples.through(Views(examples.get, how, count, seed, places))


class Views:
    """index → raw image in one of `views` views; number 0 is the image as it is.

    get: index → raw image.
    how: as for `augment`.
    views: how many there are.
    seed: of the changes.
    places: index → place among the examples that learn. Views are drawn by these, so that they do
        not depend on other files.
    """

    def __init__(
        self,
        get: Callable[[int], RawInput],
        how: str,
        views: int,
        seed: int,
        places: dict[int, int],
    ) -> None:
        self.get = get
        self.how = how
        self.views = views
        self.seed = seed
        self.places = places

    def __call__(self, index: int, view: int = 0) -> RawInput:
        """The raw input in this view. Raises `DataError` for a change of anything but images."""
        x = self.get(index)
        if view == 0:
            return x
        batch = _images(x[None] if isinstance(x, Tensor) else x, self.how)
        seeds = np.random.SeedSequence([self.seed, view, self.places[index]])
        (state,) = seeds.generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        return augment(batch, self.how, generator)[0]
