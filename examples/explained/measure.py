"""Do explanations point at what the model goes by? Insertion and deletion (Petsiuk et al., BMVC
2018) of what queries read, against attention rollout, gradients, and chance.

python examples/explained/measure.py runs/photos photos/ --count 300

From each test picture the places that a map calls most important are blurred away, step by step
(deletion: a good map makes the answer's probability fall at once), or, in a blurred picture,
brought back (insertion: it rises at once). Shown is the area under the probability, and the paired
difference from rollout with its interval of 95 %. All maps are of the same answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate
from torchvision.transforms.functional import gaussian_blur

import vpt
from vpt.data import read_parts
from vpt.runs.explaining import watching
from vpt.sites import Attended, Observe, Raw

BASE = "attention rollout"
GRADIENT = "gradient × token"
CHANCE = "chance"
BATCH = 20
Maps = dict[str, Tensor]  # method → [B,rows,columns]


def maps_of(model: vpt.PromptedModel, x: Raw, seed: int) -> Maps:
    """Every method's map of what the model says of pictures `[B,C,H,W]`, or of sounds."""
    found = vpt.explain(model, x)
    grid = found.maps.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    maps = {
        "what queries read (exact)": found.maps,
        "attention of queries": found.attention.mean((1, 2)),
        BASE: rollout(model, x, grid),
        CHANCE: torch.rand(found.maps.shape, generator=generator),
    }
    if isinstance(x, Tensor):  # no gradient passes a front end of sound
        maps[GRADIENT] = gradients(model, x, found.target, grid)
    return maps


def watched(
    model: vpt.PromptedModel, x: Raw, blocks: list[int]
) -> tuple[Tensor, dict[int, Tensor], dict[int, Attended]]:
    """(class scores, the tokens that enter these blocks, what their attention sees)."""
    tokens: dict[int, Tensor] = {}
    seen: dict[int, Attended] = {}
    sites: list[Any] = []
    for block in blocks:
        sites.append(Observe(block, tokens=partial(tokens.__setitem__, block)))
        sites.append(Observe(block, attention=partial(seen.__setitem__, block)))
    with watching(model, sites):
        return model(x), tokens, seen


@torch.no_grad()
def rollout(model: vpt.PromptedModel, x: Raw, grid: torch.Size) -> Tensor:
    """Attention of all blocks multiplied, half of it the token itself (Abnar and Zuidema, ACL 2020)
    from the class token, or from all where there is none, to places.
    """
    _, tokens, seen = watched(model, x, list(range(model.backbone.depth)))
    total = None
    for block in range(model.backbone.depth):
        one = seen[block]
        q = torch.cat([one.project(row[None]) for row in tokens[block]])
        scale = one.scale if one.scale is not None else q.shape[-1] ** -0.5
        share = torch.softmax(q * scale @ one.keys.mT, -1).mean(1)
        share = (share + torch.eye(share.shape[1])) / 2
        total = share if total is None else share @ total
    rows = total[:, :1] if model.backbone.class_token else total
    return rows.mean(1)[:, -grid.numel() :].unflatten(1, grid)


def gradients(model: vpt.PromptedModel, x: Tensor, target: Tensor, grid: torch.Size) -> Tensor:
    """Gradient of the score × token before the last block that is read, what speaks for it."""
    block = max(model.prompt.blocks)
    scores, tokens, _ = watched(model, x.clone().requires_grad_(), [block])
    score = scores.gather(1, target[:, None]).sum() - scores.mean(1).sum()
    slope = torch.autograd.grad(score, tokens[block])[0]
    found = (slope * tokens[block].detach()).sum(2).clamp(min=0)
    return found[:, -grid.numel() :].unflatten(1, grid)


@torch.no_grad()
def areas(model: vpt.PromptedModel, x: Tensor, maps: Maps, steps: int) -> Maps:
    """Method → (insertion, deletion) of each picture `[B,2]`: the area under the probability of
    what the model says of the whole picture.
    """
    plain = torch.softmax(model(x), 1)
    said = plain.argmax(1, keepdim=True)
    side = 2 * (min(x.shape[-2:]) // 10) + 1
    blurred = gaussian_blur(x, [side, side], [side / 3, side / 3])

    def chance_of(kept: Tensor) -> Tensor:
        shown = F.interpolate(kept[:, None].float(), x.shape[-2:], mode="nearest")
        scores = model(shown * x + (1 - shown) * blurred)
        return torch.softmax(scores, 1).gather(1, said)[:, 0]

    first = next(iter(maps.values()))
    ends = chance_of(torch.zeros_like(first)), plain.gather(1, said)[:, 0]
    found = {}
    for method, map_ in maps.items():
        order = map_.flatten(1).argsort(1, descending=True)
        places = torch.arange(order.shape[1]).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, places).view(map_.shape)
        cuts = [step / steps * order.shape[1] for step in range(1, steps)]
        inserted = [ends[0], *(chance_of(rank < cut) for cut in cuts), ends[1]]
        deleted = inserted  # what a random map leaves is random, too
        if method != CHANCE:
            deleted = [ends[1], *(chance_of(rank >= cut) for cut in cuts), ends[0]]
        curves = torch.stack([torch.stack(inserted, 1), torch.stack(deleted, 1)], 1)
        found[method] = torch.trapezoid(curves, dx=1 / steps)
    return found


def measured(
    model: vpt.PromptedModel,
    examples: vpt.Examples,
    steps: int,
    seed: int,
    without: list[str],
    say: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """Method → (insertion, deletion) of each picture `[n,2]`."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(examples), BATCH):
        some = range(start, min(start + BATCH, len(examples)))
        x = default_collate([examples[i][0] for i in some])
        maps = maps_of(model, x, seed + start)
        maps = {method: found for method, found in maps.items() if method not in without}
        for method, found in areas(model, x, maps, steps).items():
            parts.setdefault(method, []).append(found)
        say(f"{some[-1] + 1} of {len(examples)} pictures")
    return {method: torch.cat(rows).numpy() for method, rows in parts.items()}


def table_of(found: dict[str, np.ndarray], title: str) -> Table:
    """Means, and paired differences from rollout."""
    table = Table("map", "insertion", "− rollout", "deletion", "− rollout", title=title)
    for method, values in found.items():
        cells = []
        for kind in (0, 1):
            gap = values[:, kind] - found[BASE][:, kind]
            half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
            cells.append(f"{values[:, kind].mean():.3f}")
            cells.append("" if method == BASE else f"{gap.mean():+.3f} ± {half:.3f}")
        table.add_row(method, *cells)
    return table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run whose prompt is queries")
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--steps", type=int, default=10, help="of each curve")
    parser.add_argument("--without", nargs="*", default=[], help="maps to leave out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", help="to open the run with, if not the one that it names")
    options = parser.parse_args(argv)
    model = vpt.load(options.run, options.backbone)
    test = read_parts(options.data, model.backbone.inputs, "test")
    order = np.random.default_rng(options.seed).permutation(len(test))[: options.count]
    console = Console()
    say = partial(console.print, style="dim")
    some = test.subset(sorted(order.tolist()))
    found = measured(model, some, options.steps, options.seed, options.without, say)
    console.print(
        table_of(found, f"{options.run.name}, {len(order)} test pictures, {options.steps} steps")
    )


if __name__ == "__main__":
    main()
