"""Drawn faces with a planted bias: hair, and what goes with it by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vpt.data import Examples
from vpt.demo.drawn import AGREEMENT, SIZE, Random, draw_examples, photographed

FINE = 4  # they are drawn this much larger, then reduced
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


def portraits(count: int, seed: int = 0, agreement: float = AGREEMENT) -> Examples:
    """Drawn faces, 64 × 64: is the hair "blond" or "dark"? Group: "beard" or "lipstick" stands for
    how a person presents.

    After the published story of a model that took only women's hair for blond (CelebA, Zhang et al.
    2022). Hair length goes a little with the group; skin, glasses, smile, clothes and light vary
    freely, and light makes hair colour hard to tell. `agreement`: the share in which lipstick goes
    with blond and a beard with dark. Raises `DataError`.
    """
    return draw_examples(
        count, seed, agreement, _portrait, ["dark", "blond"], ["beard", "lipstick"]
    )


@dataclass(frozen=True)
class Head:
    """Where a face is, and how large, in sixty-fourths of a side of the picture."""

    x: float
    y: float
    width: float
    height: float
    unit: float  # pixels

    def box(self, dx: float, dy: float, rx: float, ry: float) -> list[float]:
        """Corners around a place, (dx, dy) from the middle of the face, in pixels."""
        x, y = self.x + dx, self.y + dy
        return [self.unit * v for v in (x - rx, y - ry, x + rx, y + ry)]

    def span(self, left: float, top: float, right: float, bottom: float) -> list[float]:
        """Corners of a box or ends of a line, from the middle of the face, in pixels."""
        x, y = self.x, self.y
        return [self.unit * v for v in (x + left, y + top, x + right, y + bottom)]


def _portrait(label: int, group: int, random: Random) -> Image.Image:
    side = SIZE * FINE
    ground = tuple(int(v) for v in random.integers(70, 230, 3))
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    skin = np.array(SKIN[random.integers(len(SKIN))], float)
    # they overlap: hair alone leaves some doubt
    blond = random.uniform(0.38, 1.0) if label else random.uniform(0.0, 0.48)
    hair = _colour(
        np.array([58, 40, 28]) * (1 - blond)
        + np.array([232, 198, 120]) * blond
        + random.normal(0, 10, 3)
    )
    x, y = 32 + random.uniform(-3, 3), 33 + random.uniform(-2, 3)
    head = Head(x, y, random.uniform(11.5, 13.5), random.uniform(14.5, 16.5), side / 64)
    _draw_body(pen, head, group, skin, hair, random)
    _draw_face(pen, head, group, skin, random)
    small = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return photographed(np.asarray(small, float), random, noise=8)


def _draw_body(
    pen: ImageDraw.ImageDraw,
    head: Head,
    group: int,
    skin: np.ndarray,
    hair: tuple[int, ...],
    random: Random,
) -> None:
    """Hair, clothes, neck, skin, and a beard or none.

    pen: draws on the picture.
    head: where the face is.
    group: 0 has a beard, 1 wears lipstick.
    skin: its colour.
    hair: its colour.
    random: of what varies freely.
    """
    unit, width, height = head.unit, head.width, head.height
    if random.random() < (0.6 if group else 0.4):  # long hair
        strands = head.span(-width - 3, -10, width + 3, random.uniform(18, 26))
        pen.rounded_rectangle(strands, 6 * unit, hair)
    left, top, right, _ = head.span(-22, 19, 22, 0)
    clothes = CLOTHES[random.integers(len(CLOTHES))]
    pen.rounded_rectangle([left, top, right, SIZE * FINE + 40], 9 * unit, clothes)
    pen.rectangle(head.span(-5, 12, 5, 22), _colour(skin * 0.88))
    pen.ellipse(head.box(0, -5, width + 2.5, height), hair)
    pen.ellipse(head.box(0, 1, width, height), _colour(skin))
    fringe = (180 + random.uniform(-8, 8), 360 + random.uniform(-8, 8))
    pen.chord(head.box(0, -5, width + 1, height - 3), *fringe, hair)
    if not group:
        pen.chord(head.box(0, 5, width - 0.5, height - 3.5), 15, 165, _colour(skin * 0.45))


def _draw_face(
    pen: ImageDraw.ImageDraw, head: Head, group: int, skin: np.ndarray, random: Random
) -> None:
    """Eyes, glasses or none, nose and mouth."""
    unit = head.unit
    for side in (-5, 5):
        pen.ellipse(head.box(side, 0, 2.2, 1.6), (250, 250, 250))
        pen.ellipse(head.box(side, 0, 1.1, 1.3), (40, 30, 30))
    if random.random() < 0.3:
        for side in (-5, 5):
            rim = head.box(side, 0, 3.8, 3.4)
            pen.ellipse(rim, outline=(20, 20, 20), width=int(unit * 0.8))
        pen.line(head.span(-1.2, 0, 1.2, 0), (20, 20, 20), int(unit * 0.8))
    pen.line(head.span(0, 2, -1, 5), _colour(skin * 0.75), int(unit * 0.7))
    lips, thick = ((200, 30, 60), 1.8) if group else (_colour(skin * 0.6), 0.9)
    if random.random() < 0.5:
        pen.arc(head.box(0, 7, 5, 3.5), 20, 160, lips, int(unit * thick))
    else:
        pen.line(head.span(-3.5, 9.5, 3.5, 9.5), lips, int(unit * thick))


def _colour(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in values.clip(0, 255))
