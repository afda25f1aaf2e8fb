"""Crops of pictures and sounds in rows: what each query is, or answers to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vpt.report.pictures import INK, figure_of, png_of

Crop = tuple[np.ndarray, str]  # `[H,W]` or `[H,W,3]` in [0,1], and what it is


def crops(rows: Sequence[tuple[str, Sequence[Crop]]], title: str) -> bytes:
    """Rows of crops, each with its name in front and what each crop is below, PNG."""
    wide = max(len(own) for _, own in rows)
    figure = figure_of(1.1 + 1.15 * wide, 0.6 + 1.3 * len(rows))
    all_axes = figure.subplots(len(rows), wide, squeeze=False)
    for line, (name, own) in zip(all_axes, rows, strict=True):
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
        line[0].set_ylabel(name, color=INK, fontsize=8)
        for axes, (crop, what) in zip(line, own, strict=False):
            axes.imshow(crop, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xlabel(what, color=INK, fontsize=6.5, wrap=True)
    figure.suptitle(title, color=INK, fontsize=9)
    return png_of(figure)
