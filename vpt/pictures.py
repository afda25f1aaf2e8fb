"""Pictures: what a pixel prompt looks like, how a run went. Drawn off screen, written as PNG."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

INK, SOFT, GOOD = "#1b2a41", "#8d99ae", "#c1440e"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in scripts that matplotlib's font lacks
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def shown(x: Tensor) -> np.ndarray:
    """An image `[C,H,W]` as `[H,W,3]` for drawing, clipped to [0,1]."""
    image = x.detach().float().cpu().clamp(0, 1)
    return (image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]).permute(1, 2, 0).numpy()


def pixel_prompt(canvas: Tensor, title: str, unit: str, halves: bool = False) -> bytes:
    """A pixel prompt alone: colours for images `[C,H,W]` (the range is stretched to [0,1] and printed), a map for sound.

    halves: whether the map's first half stands before the clip and its second half behind it (a border).
    """
    figure = _figure(5, 4.6)
    axes = figure.add_subplot()
    low, high = float(canvas.min()), float(canvas.max())
    if canvas.ndim == 3:
        axes.imshow(shown((canvas - low) / max(high - low, 1e-9)), interpolation="nearest")
        axes.set_xlabel(f"pixels; values from {low:.2f} to {high:.2f}, stretched to black and white")
    else:
        drawn = axes.imshow(canvas.detach().cpu().numpy().T, origin="lower", aspect="auto", cmap="magma")
        figure.colorbar(drawn, ax=axes, label=unit)
        along = "samples" if canvas.shape[1] == 1 else "time frames"
        axes.set_xlabel(f"{along} (first half before the clip, second half behind it)" if halves else along)
        axes.set_ylabel("mel bands" if canvas.shape[1] > 1 else "")
    axes.set_title(title, color=INK, fontsize=9, wrap=True)
    return _png(figure)


def reprogrammed(before: Sequence[Tensor], after: Sequence[Tensor], titles: Sequence[str]) -> bytes:
    """Images as they came (top) and as the frozen model sees them with the prompt (bottom)."""
    figure = _figure(1.5 * len(before), 3.6)
    axes = figure.subplots(2, len(before), squeeze=False)
    for column, (one, two, title) in enumerate(zip(before, after, titles, strict=True)):
        for row, image in enumerate((one, two)):
            axes[row][column].imshow(shown(image), interpolation="nearest")
            axes[row][column].set_axis_off()
        axes[0][column].set_title(title, color=INK, fontsize=9)
    return _png(figure)


def curves(rows: Sequence[dict[str, Any]], best: int, baselines: dict[str, float], title: str) -> bytes:
    """Accuracy and loss by epoch, the epoch that was kept, and baselines on validation as lines."""
    figure = _figure(8, 3.4)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for name, colour in (("train_accuracy", SOFT), ("val_accuracy", GOOD)):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        if points:
            left.plot(*zip(*points, strict=True), color=colour, marker="o", ms=3, label=name.replace("_", " "))
    for (name, value), style in zip(baselines.items(), cycle(("--", ":", "-.")), strict=False):
        left.axhline(value, color=INK, lw=1, ls=style, label=f"{name} (validation)")
    if best in epochs:
        left.axvline(best, color=GOOD, lw=6, alpha=0.15)
    for name, colour in (("loss", SOFT), ("val_loss", GOOD)):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        if points:
            right.plot(*zip(*points, strict=True), color=colour, marker="o", ms=3, label=name.replace("_", " "))
    for axes, label in ((left, "accuracy"), (right, "cross-entropy")):
        axes.set(xlabel="epoch", ylabel=label)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, color=INK, fontsize=10)
    return _png(figure)
