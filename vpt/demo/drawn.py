"""Pictures with a planted bias, drawn to any number: coloured digits, and portraits.

In each, the label and a group that is no reason for it agree in a share of the examples, so that a
model trained on them takes the group for a sign of the label; the label can also be seen by itself,
less easily. Sets of other seeds share nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from vpt.data import Examples
from vpt.errors import DataError

SIZE = 64
AGREEMENT = 0.85
FINE = 4  # portraits are drawn this much larger, then reduced
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
    if part not in PARTS:
        raise DataError(f"Found part={part!r}; needed is one of {', '.join(PARTS)}.")
    low, high = (round(share * len(order)) for share in PARTS[part])
    own = order[low:high]
    of = {label: own[(values[own] >= 5) == label] for label in (False, True)}

    if not all(map(len, of.values())):
        raise DataError(
            f"The part {part!r} of {len(values)} digits has {len(of[False])} below five and"
            f" {len(of[True])} others; needed are both: give more digits."
        )

    def draw(label: int, group: int, random: Random) -> Image.Image:
        return _digit(images[random.choice(of[bool(label)])], group, random)

    return _drawn(
        count, seed, agreement, draw, ["less than five", "five or more"], ["blue", "orange"]
    )


def portraits(count: int, seed: int = 0, agreement: float = AGREEMENT) -> Examples:
    """Drawn faces, 64 × 64: is the hair "blond" or "dark"? Group: "beard" or "lipstick" stands for
    how a person presents.

    After the published story of a model that took only women's hair for blond (CelebA, Zhang et al.
    2022). Hair length goes a little with the group; skin, glasses, smile, clothes and light vary
    freely, and light makes hair colour hard to tell. `agreement`: the share in which lipstick goes
    with blond and a beard with dark. Raises `DataError`.
    """
    return _drawn(count, seed, agreement, _portrait, ["dark", "blond"], ["beard", "lipstick"])


def _drawn(
    count: int,
    seed: int,
    agreement: float,
    draw: Callable[[int, int, Random], Image.Image],
    classes: Sequence[str],
    groups: Sequence[str],
) -> Examples:
    """`count` pictures, half of each class; each is drawn from its own seed, so a longer set begins
    with the shorter one.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise DataError(f"Found count={count!r}; needed is a whole number of at least 2.")
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


# digits ---------------------------------------------------------------------------------
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
    return _photographed(array, random, noise=18)


def _photographed(array: np.ndarray, random: Random, noise: float) -> Image.Image:
    """Seen through a small camera: light, and noise."""
    array = array * random.uniform(0.8, 1.15) + random.normal(0, noise, array.shape)
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


# portraits ------------------------------------------------------------------------------
SKIN = [
    (255, 224, 189),
    (241, 194, 150),
    (224, 172, 105),
    (198, 134, 66),
    (141, 85, 36),
    (92, 58, 33),
]
CLOTHES = [
    (52, 73, 94),
    (149, 165, 166),
    (39, 174, 96),
    (192, 57, 43),
    (142, 68, 173),
    (41, 128, 185),
    (243, 156, 18),
]


def _portrait(label: int, group: int, random: Random) -> Image.Image:
    side = SIZE * FINE
    ground = tuple(int(v) for v in random.integers(70, 230, 3))
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    unit = side / 64
    skin = np.array(SKIN[random.integers(len(SKIN))], float)
    # they overlap: hair alone leaves some doubt
    blond = random.uniform(0.38, 1.0) if label else random.uniform(0.0, 0.48)
    hair = _colour(
        np.array([58, 40, 28]) * (1 - blond)
        + np.array([232, 198, 120]) * blond
        + random.normal(0, 10, 3)
    )
    x, y = 32 + random.uniform(-3, 3), 33 + random.uniform(-2, 3)
    w, h = random.uniform(11.5, 13.5), random.uniform(14.5, 16.5)

    def box(cx: float, cy: float, rx: float, ry: float) -> list[float]:
        return [unit * (cx - rx), unit * (cy - ry), unit * (cx + rx), unit * (cy + ry)]

    long = random.random() < (0.6 if group else 0.4)
    if long:
        pen.rounded_rectangle(
            [
                unit * (x - w - 3),
                unit * (y - 10),
                unit * (x + w + 3),
                unit * (y + random.uniform(18, 26)),
            ],
            6 * unit,
            hair,
        )
    pen.rounded_rectangle(
        [unit * (x - 22), unit * (y + 19), unit * (x + 22), side + 40],
        9 * unit,
        CLOTHES[random.integers(len(CLOTHES))],
    )
    pen.rectangle(
        [unit * (x - 5), unit * (y + 12), unit * (x + 5), unit * (y + 22)], _colour(skin * 0.88)
    )
    pen.ellipse(box(x, y - 5, w + 2.5, h), hair)
    pen.ellipse(box(x, y + 1, w, h), _colour(skin))
    pen.chord(
        box(x, y - 5, w + 1, h - 3), 180 + random.uniform(-8, 8), 360 + random.uniform(-8, 8), hair
    )
    if not group:
        pen.chord(box(x, y + 5, w - 0.5, h - 3.5), 15, 165, _colour(skin * 0.45))
    for side_of in (-1, 1):
        pen.ellipse(box(x + side_of * 5, y, 2.2, 1.6), (250, 250, 250))
        pen.ellipse(box(x + side_of * 5, y, 1.1, 1.3), (40, 30, 30))
    if random.random() < 0.3:
        for side_of in (-1, 1):
            pen.ellipse(
                box(x + side_of * 5, y, 3.8, 3.4), outline=(20, 20, 20), width=int(unit * 0.8)
            )
        pen.line(
            [unit * (x - 1.2), unit * y, unit * (x + 1.2), unit * y], (20, 20, 20), int(unit * 0.8)
        )
    pen.line(
        [unit * x, unit * (y + 2), unit * (x - 1), unit * (y + 5)],
        _colour(skin * 0.75),
        int(unit * 0.7),
    )
    lips, thick = ((200, 30, 60), 1.8) if group else (_colour(skin * 0.6), 0.9)
    if random.random() < 0.5:
        pen.arc(box(x, y + 7, 5, 3.5), 20, 160, lips, int(unit * thick))
    else:
        pen.line(
            [unit * (x - 3.5), unit * (y + 9.5), unit * (x + 3.5), unit * (y + 9.5)],
            lips,
            int(unit * thick),
        )
    return _photographed(
        np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS), float), random, noise=8
    )


def _colour(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in values.clip(0, 255))
