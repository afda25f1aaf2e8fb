"""A place of an example, cut out with what is around it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vpt.backbones import Backbone
from vpt.report.pixels import shown
from vpt.runs.grids import Grid
from vpt.sites import Raw, takes_images

AROUND = 1.0  # places on every side of the one that is meant
LEAST = 1 / 12  # of a side, where places are narrower


@torch.no_grad()
def picture_of(backbone: Backbone, x: Raw) -> np.ndarray:
    """What the model is given, to look at: `[H,W,3]`, or a spectrogram `[bins,frames]`, in [0,1].

    x: raw input of one example.
    """
    inputs = backbone.inputs
    if takes_images(inputs):
        picture = x if isinstance(x, Tensor) else x[0]
        picture = picture[0, 0] if picture.ndim == 5 else picture[0]
        return shown(picture)
    prepared, _ = inputs.prepare(x)
    values = prepared[0].float().T.cpu()  # [bins,frames]
    if len(values) == 1:  # of a waveform: its envelope, as a band
        values = values.abs().expand(8, -1)
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low).clamp(min=1e-6))


def crop_of(picture: np.ndarray, grid: Grid, place: int, side: int) -> Tensor:
    """A place of a picture with those around it, as bytes `[3,side,side]`; of a spectrogram low
    tones are below.

    grid: rows and columns of places. place: counted row by row.
    """
    image = torch.from_numpy(np.ascontiguousarray(picture)).float()
    image = image[None].expand(3, -1, -1) if image.ndim == 2 else image.permute(2, 0, 1)
    spans = []
    for size, count, at in zip(image.shape[1:], grid, divmod(place, grid[1]), strict=True):
        one = size / count
        half = max(one * (0.5 + AROUND), size * LEAST / 2)
        middle = min(max((at + 0.5) * one, half), max(size - half, half))
        low = max(0, round(middle - half))
        spans.append(slice(low, min(size, max(low + 1, round(middle + half)))))
    cut = image[:, spans[0], spans[1]]
    if picture.ndim == 2:
        cut = cut.flip(1)
    found = F.interpolate(cut[None], (side, side), mode="bilinear", antialias=True)[0]
    return (found.clamp(0, 1) * 255).round().to(torch.uint8)
