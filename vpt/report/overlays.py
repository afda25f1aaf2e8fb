"""What speaks for a class and against it, laid over a picture or a spectrogram."""

from __future__ import annotations

import numpy as np

from vpt.report.pictures import INK, figure_of, png_of


def overlay(picture: np.ndarray, found: np.ndarray, title: str, sound: bool = False) -> bytes:
    """A picture beside itself under a map: orange adds to the score, blue takes from it, PNG.

    picture: `[H,W,3]` in [0,1], or a spectrogram `[bins,frames]`. found: the map
        `[rows,columns]`; it is stretched over the picture. sound: low tones are drawn below.
    """
    figure = figure_of(7.2, 3.4)
    most = float(np.abs(found).max()) or 1.0
    height, width = picture.shape[:2]
    shown = {"origin": "lower", "aspect": "auto"} if sound else {"aspect": "equal"}
    for axes, over in zip(figure.subplots(1, 2), (False, True), strict=True):
        grey = picture if picture.ndim == 2 else picture.mean(2)
        axes.imshow(grey if over or sound else picture, cmap="gray", **shown)
        if over:
            image = axes.imshow(
                found,
                cmap="PuOr_r",
                vmin=-most,
                vmax=most,
                alpha=0.65,
                interpolation="nearest",
                extent=axes.images[0].get_extent(),
                **shown,
            )
            bar = figure.colorbar(image, ax=axes, shrink=0.8)
            bar.set_label("adds to the score", color=INK, fontsize=8)
            bar.ax.tick_params(labelsize=7)
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5))
        axes.set_ylim((-0.5, height - 0.5) if sound else (height - 0.5, -0.5))
    figure.suptitle(title, color=INK, fontsize=10)
    return png_of(figure)
