"""Pictures of pixel prompts: alone, and on the images that a frozen model sees. Written as PNG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vpt.report.pictures import INK, figure_of, png_of


def shown(x: Tensor) -> np.ndarray:
    """An image `[C,H,W]` as `[H,W,3]` for drawing, clipped to [0,1]."""
    image = x.detach().float().cpu().clamp(0, 1)
    image = image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]
    return image.permute(1, 2, 0).numpy()


def pixel_prompt(canvas: Tensor, title: str, unit: str, halves: bool = False) -> bytes:
    """A pixel prompt alone: colours for images `[C,H,W]` (the range is stretched to [0,1] and
    printed), a map for sound.

    halves: whether the map's first half stands before the clip and its second half behind it (a
        border).
    """
    figure = figure_of(5, 4.6)
    axes = figure.add_subplot()
    low, high = float(canvas.min()), float(canvas.max())
    if canvas.ndim == 3:
        axes.imshow(shown((canvas - low) / max(high - low, 1e-9)), interpolation="nearest")
        axes.set_xlabel(
            f"pixels; values from {low:.2f} to {high:.2f}, stretched to black and white"
        )
    else:
        drawn = axes.imshow(
            canvas.detach().cpu().numpy().T, origin="lower", aspect="auto", cmap="magma"
        )
        figure.colorbar(drawn, ax=axes, label=unit)
        along = "samples" if canvas.shape[1] == 1 else "time frames"
        if halves:
            axes.set_xlabel(f"{along} (first half before the clip, second half behind it)")
        else:
            axes.set_xlabel(along)
        axes.set_ylabel("mel bands" if canvas.shape[1] > 1 else "")
    axes.set_title(title, color=INK, fontsize=9, wrap=True)
    return png_of(figure)


def reprogrammed(before: Sequence[Tensor], after: Sequence[Tensor], titles: Sequence[str]) -> bytes:
    """Images as they came (top) and as the frozen model sees them with the prompt (bottom)."""
    figure = figure_of(1.5 * len(before), 3.6)
    axes = figure.subplots(2, len(before), squeeze=False)
    for column, (one, two, title) in enumerate(zip(before, after, titles, strict=True)):
        for row, image in enumerate((one, two)):
            axes[row][column].imshow(shown(image), interpolation="nearest")
            axes[row][column].set_axis_off()
        axes[0][column].set_title(title, color=INK, fontsize=9)
    return png_of(figure)
