"""Pictures with a planted bias, drawn to any number; and coloured digits, the first kind of them.

In each, the label and a group that is no reason for it agree in a share of the examples, so that a
model trained on them takes the group for a sign of the label; the label can also be seen by itself,
less easily. Sets of other seeds share nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from vpt.data import Examples
from vpt.errors import DataError
from vpt.errors.needs import one_of, whole

SIZE = 64
AGREEMENT = 0.85
# which of the digits; a prompt is tuned on a tenth as many as a model learns
PARTS = {"train": (0.0, 0.7), "tune": (0.7, 0.735), "validate": (0.735, 0.77), "test": (0.77, 1.0)}

Random = np.random.Generator


def coloured_digits(
    count: int,
    seed: int = 0,
    part: str = "train",
    agreement: float = AGREEMENT,
    written: tuple[np.ndarray, np.ndarray] | None = None,
) -> Examples:
    """Handwritten digits on a coloured ground, 64 × 64: is it "five or more"? Group: "orange" or
    "blue".

    Each is a digit of its part (train, tune, validate, test; none is in two of them), turned, moved
    and scaled, more or less legible. `agreement`: the share in which orange goes with five or more
    and blue with less. written: grey images `[N,h,w]` in [0,1] (ink is 1) and their digits `[N]`;
    scikit-learn's (UCI) by default. Raises `DataError`.
    """
    if written is None:
        raw = load_digits()
        written = raw.images / 16, raw.target
    images, values = written
    order = np.random.default_rng(0).permutation(len(values))
    one_of(DataError, PARTS, part=part)
    low, high = (round(share * len(order)) for share in PARTS[part])
    of_part = order[low:high]
    below, others = of_part[values[of_part] < 5], of_part[values[of_part] >= 5]
    if not len(below) or not len(others):
        raise DataError(
            f"The part {part!r} of {len(values)} digits has {len(below)} below five and"
            f" {len(others)} others; needed are both: give more digits."
        )

    def draw(label: int, group: int, random: Random) -> Image.Image:
        return _digit(images[random.choice(others if label else below)], group, random)

    return draw_examples(
        count, seed, agreement, draw, ["less than five", "five or more"], ["blue", "orange"]
    )


def draw_examples(
    count: int,
    seed: int,
    agreement: float,
    draw: Callable[[int, int, Random], Image.Image],
    classes: Sequence[str],
    groups: Sequence[str],
) -> Examples:
    """`count` pictures, half of each class; each is drawn from its own seed, so a longer set begins
    with the shorter one.

    count: of pictures.
    seed: of all of them.
    agreement: the share in which label and group have the same number.
    draw: (label, group, generator) → a picture.
    classes: names of the labels.
    groups: names of the groups.
    """
    whole(DataError, least=2, count=count)
    if not 0 <= agreement <= 1:
        raise DataError(f"Found agreement={agreement}; needed is a share in [0, 1].")
    pictures, labels, members = [], [], []
    for i in range(count):
        random = np.random.default_rng([seed, i])
        label = i % 2
        group = label if random.random() < agreement else 1 - label
        array = np.asarray(draw(label, group, random).convert("RGB"))
        pictures.append(torch.from_numpy(array.transpose(2, 0, 1).copy()))
        labels.append(label)
        members.append(group)
    return Examples(
        lambda i: pictures[i].float() / 255, labels, classes, groups=members, group_names=groups
    )


def _digit(digit: np.ndarray, group: int, random: Random) -> Image.Image:
    ink = Image.fromarray((digit * 255).astype(np.uint8)).resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC
    )
    angle, scale = math.radians(random.uniform(-12, 12)), random.uniform(0.95, 1.35)
    a, b = math.cos(angle) * scale, math.sin(angle) * scale
    (x, y), middle = random.uniform(-6, 6, 2) + SIZE / 2, SIZE / 2
    matrix = (a, b, middle - a * x - b * y, -b, a, middle + b * x - a * y)
    ink = ink.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    hue = np.array([[60, 110, 190], [215, 130, 50]][group]) + random.normal(0, 18, 3)
    ground = np.broadcast_to(hue, (SIZE, SIZE, 3))
    strength = random.uniform(0.15, 0.9)
    array = ground + (245 - ground) * strength * (np.asarray(ink, float) / 255)[:, :, None]
    return photographed(array, random, noise=18)


def photographed(array: np.ndarray, random: Random, noise: float) -> Image.Image:
    """Seen through a small camera: light, and noise."""
    array = array * random.uniform(0.8, 1.15) + random.normal(0, noise, array.shape)
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))
