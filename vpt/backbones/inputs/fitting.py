"""A picture of any shape → the size that a model is given: resized, then its centre cut out, as the
model's library does it.

timm resizes with Pillow and rounds the offset of a crop; transformers resizes tensors with torch
and floors it. A pixel of the two may be two grey levels apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

if TYPE_CHECKING:
    from vpt.backbones.inputs.images import Images

RESAMPLES = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MODES = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
FITS = ("cover", "squash", "border", "crop")
LIBRARIES = ("timm", "transformers")
# pixels of a picture between resizing and cutting; of a longer one only what is kept is made
MOST = 1 << 26


class Plan(NamedTuple):
    """Where a picture goes: it is resized to `size` (height, width), of which the window at `top`,
    `left` is kept.

    A negative offset means that there is not enough: as much is filled in.
    """

    size: tuple[int, int]
    top: int
    left: int


def plan(height: int, width: int, inputs: Images) -> Plan:
    """How a picture of this size is brought to what `inputs` says."""
    size = _resized(height, width, inputs)
    top, left = (
        _offset(have, want, inputs.like) for have, want in zip(size, inputs.size, strict=True)
    )
    return Plan(size, top, left)


def _resized(height: int, width: int, inputs: Images) -> tuple[int, int]:
    to = inputs.resize_to
    if inputs.fit == "crop":
        return height, width
    if inputs.fit == "squash":
        return to
    # torchvision's Resize(shorter side), and transformers' shortest_edge
    if inputs.fit == "cover" and to[0] == to[1]:
        short, long = min(height, width), max(height, width)
        found = {short: to[0], long: int(to[0] * long / short)}
        return (found[height], found[width]) if height != width else to
    ratios = (height / to[0], width / to[1])
    ratio = max(ratios) if inputs.fit == "border" else min(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _offset(have: int, want: int, like: str) -> int:
    """Of the window in the picture; where the picture is smaller, minus the filling before it."""
    if have < want:
        return -((want - have) // 2)
    return (have - want) // 2 if like == "transformers" else round((have - want) / 2.0)


def fitted(image: Image.Image, inputs: Images) -> Tensor:
    """A picture of mode RGB or L → uint8 `[C,H,W]` of the model's size."""
    height, width = inputs.size
    (tall, wide), top, left = plan(image.height, image.width, inputs)
    resample = RESAMPLES[inputs.interpolation]
    kept = (max(left, 0), max(top, 0), min(left + width, wide), min(top + height, tall))
    if inputs.fit == "crop":
        part = image.crop(kept)
    elif tall * wide <= MOST and inputs.like == "transformers" and inputs.interpolation in MODES:
        pixels = tvf.resize(
            tvf.pil_to_tensor(image), [tall, wide], MODES[inputs.interpolation], antialias=True
        )
        part = tvf.to_pil_image(pixels).crop(kept)
    elif tall * wide <= MOST:
        part = image.resize((wide, tall), resample).crop(kept)
    else:
        scale = (image.width / wide, image.height / tall)
        box = (kept[0] * scale[0], kept[1] * scale[1], kept[2] * scale[0], kept[3] * scale[1])
        part = image.resize((kept[2] - kept[0], kept[3] - kept[1]), resample, box=box)
    array = np.array(part, np.uint8).reshape(part.height, part.width, -1)
    if (part.height, part.width) != (height, width):
        whole = np.empty((height, width, array.shape[2]), np.uint8)
        whole[:] = _fill(inputs)
        y, x = max(-top, 0), max(-left, 0)
        whole[y : y + part.height, x : x + part.width] = array
        array = whole
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _fill(inputs: Images) -> Sequence[int] | int:
    """The colour beside a picture: the mean under "border", as timm has it, and black elsewhere."""
    return [round(255 * m) for m in inputs.mean] if inputs.fit == "border" else 0  # type: ignore[union-attr]
