"""Are maps of what queries read about this model and this place? Two checks on made examples.

python examples/explained/checks.py

Pointing game (Zhang et al., ECCV 2016): a shape stands somewhere on a texture, or a short word of
tones somewhere in noise, and the greatest place of a map should lie within it. Sanity (Adebayo et
al., NeurIPS 2018): maps of a model that learned from shuffled labels, or whose queries or whose
classifier are random, must be others; shown is the mean rank correlation with those of the real
one, and, as what to expect of the same knowledge, with those of another seed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import torch
from measure import maps_of
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

import vpt
from vpt.runs.kept import keep
from vpt.runs.making import start_among
from vpt.runs.querying import DECAY
from vpt.training.side_by_side import learn_side_by_side

SIZE, SHAPE = 64, 20  # pixels
SHAPES = ["disc", "square", "ring", "cross"]
WORDS = ["rising", "falling", "steady", "warbling"]
SPOKEN = 0.25  # seconds of a word
Box = tuple[float, float, float, float]  # top, bottom, left, right, as shares of the sides
Made = tuple[vpt.Examples, list[Box]]


def pictures(backbone: vpt.Backbone, count: int, seed: int) -> Made:
    """Shapes in random colours on smooth textures, and where they are."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.arange(SHAPE) - SHAPE / 2 + 0.5,) * 2, indexing="ij")
    far = (x.square() + y.square()).sqrt()
    masks = [
        far < 10,
        torch.ones_like(far) > 0,
        (far < 10) & (far > 5),
        (x.abs() < 3) | (y.abs() < 3),
    ]
    made, boxes = [], []
    for i in range(count):
        coarse = torch.rand(1, 3, 9, 9, generator=generator)
        picture = F.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)[0]
        top, left = torch.randint(SIZE - SHAPE, (2,), generator=generator).tolist()
        colour = torch.rand(3, 1, generator=generator)
        part = picture[:, top : top + SHAPE, left : left + SHAPE]
        part[:, masks[i % 4]] = colour.expand(3, int(masks[i % 4].sum()))
        made.append(picture)
        ends = (top, top + SHAPE, left, left + SHAPE)
        boxes.append(tuple(end / SIZE for end in ends))
    return vpt.Examples(made.__getitem__, [i % 4 for i in range(count)], SHAPES), boxes


def sounds(backbone: vpt.Backbone, count: int, seed: int) -> Made:
    """Words of tones in noise, and when they are said; at any pitch."""
    generator = torch.Generator().manual_seed(seed)
    rate, samples = backbone.inputs.sample_rate, backbone.inputs.samples
    length, made, boxes = int(SPOKEN * rate), [], []
    time = torch.arange(length) / length
    for i in range(count):
        wave = 0.05 * torch.randn(samples, generator=generator)
        start = int(torch.randint(samples - length, (1,), generator=generator))
        low = 400 * 2 ** float(2 * torch.rand(1, generator=generator))
        bend = [time, 1 - time, torch.full_like(time, 0.5), 0.5 + 0.5 * (12 * math.pi * time).sin()]
        phase = torch.cumsum(2 * math.pi * low * (1 + bend[i % 4]) / rate, 0)
        wave[start : start + length] += 0.2 * phase.sin() * (math.pi * time).sin()
        made.append((wave, torch.tensor(samples)))
        boxes.append((0.0, 1.0, start / samples, (start + length) / samples))
    return vpt.Examples(made.__getitem__, [i % 4 for i in range(count)], WORDS), boxes


def learned(
    backbone: vpt.Backbone, examples: vpt.Examples, seed: int, labels: list[int] | None = None
) -> vpt.PromptedModel:
    """Queries and a classifier, learned as `vpt adapt` does for its candidate."""
    prompt = vpt.QueryTokens.like(backbone, 4)
    start_among(prompt, backbone, examples, seed)
    kept = keep(backbone, examples, blocks=prompt.blocks)
    found = learn_side_by_side(
        kept.of_blocks(prompt.blocks),
        list(prompt.queries),
        kept.y if labels is None else torch.tensor(labels),
        torch.ones(1, len(kept.y)),
        len(examples.classes),
        decay=DECAY,
        seed=seed,
    )
    return vpt.PromptedModel(backbone, prompt, found.into(prompt, examples.classes)).eval()


def all_maps(model: vpt.PromptedModel, examples: vpt.Examples) -> dict[str, Tensor]:
    """Every method's maps of all examples `[n,rows,columns]`."""
    parts: dict[str, list[Tensor]] = {}
    for some in torch.arange(len(examples)).split(20):
        x = default_collate([examples[int(i)][0] for i in some])
        x = tuple(x) if isinstance(x, list) else x
        for method, found in maps_of(model, x, int(some[0])).items():
            parts.setdefault(method, []).append(found.detach())
    return {method: torch.cat(found) for method, found in parts.items()}


def hits(maps: Tensor, boxes: list[Box]) -> float:
    """How often the greatest place touches the box by its middle; of boxes over the full height,
    the greatest column.
    """
    rows, columns = maps.shape[1:]
    found = []
    for one, (top, bottom, left, right) in zip(maps, boxes, strict=True):
        if (top, bottom) == (0.0, 1.0):
            row, column = 0, int(one.sum(0).argmax())
        else:
            row, column = divmod(int(one.argmax()), columns)
        across, down = (column + 0.5) / columns, (row + 0.5) / rows
        found.append(left <= across <= right and top <= down <= bottom)
    return float(np.mean(found))


def pointing(kind: str, name: str, make: Callable[..., Made], count: int, table: Table) -> None:
    """The pointing game on one kind of made examples, a row for each map."""
    backbone = vpt.load_backbone(name)
    train, _ = make(backbone, count, 0)
    test, boxes = make(backbone, count, 1)
    with learned(backbone, train, 0) as model:
        accuracy = vpt.evaluate(model, test)["accuracy"]
        for method, found in all_maps(model, test).items():
            table.add_row(kind, f"{accuracy:.0%}", method, f"{hits(found, boxes):.0%}")


def alike(one: Tensor, other: Tensor) -> float:
    """Mean rank correlation of the maps of the same pictures."""
    ranks = [maps.flatten(1).argsort(1).argsort(1).double() for maps in (one, other)]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)]))


def sanity(count: int) -> Table:
    """How like the maps of a model those of spoiled ones are."""
    backbone = vpt.load_backbone("vpt:vit-p8-64")
    train, _ = pictures(backbone, count, 0)
    test, _ = pictures(backbone, count, 1)
    x = torch.stack([test[i][0] for i in range(len(test))])
    y = torch.tensor(test.targets)

    def maps(model: vpt.PromptedModel) -> Tensor:
        with model:
            return vpt.explain(model, x, y).maps

    generator = torch.Generator().manual_seed(0)
    real = maps(learned(backbone, train, 0))
    table = Table("maps of the right class, of", "like those of the model", title="Sanity")
    table.add_row("another seed", f"{alike(real, maps(learned(backbone, train, 1))):.2f}")
    shuffled = [train.targets[int(i)] for i in torch.randperm(count, generator=generator)]
    spoiled = maps(learned(backbone, train, 0, shuffled))
    table.add_row("shuffled labels", f"{alike(real, spoiled):.2f}")
    for what in ("queries", "classifier"):
        model = learned(backbone, train, 0)
        for value in model.prompt.queries if what == "queries" else [model.readout.weight]:
            with torch.no_grad():
                value.copy_(value.std() * torch.randn(value.shape, generator=generator))
        table.add_row(f"random {what}", f"{alike(real, maps(model)):.2f}")
    return table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=200, help="of examples to learn, and to look at"
    )
    options = parser.parse_args(argv)
    table = Table("examples", "accuracy", "map", "points into it", title="Pointing game")
    pointing("shapes on textures", "vpt:vit-p8-64", pictures, options.count, table)
    pointing("words in noise", "vpt:ast-tiny", sounds, options.count, table)
    for found in (table, sanity(options.count)):
        Console(width=100).print(found)


if __name__ == "__main__":
    main()
