"""Files explained: for each a picture of what speaks for the model's answer, and in which blocks it
was read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from vpt.data.given import all_given, examples_of
from vpt.errors import DataError, PromptError
from vpt.files import write_atomically
from vpt.model import PromptedModel
from vpt.report.overlays import overlay
from vpt.runs.cropping import picture_of
from vpt.runs.explaining import explain, queries_of
from vpt.runs.occluding import occlusion
from vpt.sites import Raw, takes_images
from vpt.training.evaluation import scores


@dataclass(frozen=True)
class Explained:
    """name: of the file. label, probability: what the model says of it. picture: where its map is.
    blocks: what the queries of each block add to the score, by number; empty where the map was made
    by covering parts. way: how it was made, for people.
    """

    name: str
    label: str
    probability: float
    picture: Path
    blocks: dict[int, float]
    way: str


def explain_files(
    model: PromptedModel, inputs: object, out: Path, label: str | None = None
) -> list[Explained]:
    """Explain what a model says of files (or of what else `vpt.predict` takes), one PNG for each.

    label: the class that is explained; by default what the model says. Raises `DataError` for a
    class that the model does not have, and what `all_given` and `examples_of` raise.
    """
    things = list(all_given(inputs, model.backbone.inputs))
    if not things:
        raise DataError("Found nothing to explain; needed is at least one file.")
    examples = examples_of(things, model.backbone.inputs)
    names, target = class_of(model, label)
    found = []
    answers, _ = scores(model, examples)
    windows = Counter(examples.windows()[1])
    for i, thing in enumerate(things):
        x: Raw = default_collate([examples[i][0]])
        shares = torch.softmax(answers[i], 0)
        chosen = int(shares.argmax()) if target is None else target
        grid, blocks, way = _map(model, x, chosen)
        way += f", in the first of {windows[i]} windows" if windows[i] > 1 else ""
        title = f"{names[chosen]} ({float(shares[chosen]):.0%}): {way}"
        png = overlay(
            picture_of(model.backbone, x),
            grid.numpy(),
            title,
            not takes_images(model.backbone.inputs),
        )
        path = out / f"{i:03d}-{Path(thing.name).stem[:60]}.png"
        write_atomically(path, png)
        found.append(Explained(thing.name, names[chosen], float(shares[chosen]), path, blocks, way))
    return found


def class_of(model: PromptedModel, label: str | None) -> tuple[list[str], int | None]:
    """(names of the model's classes, the number of this one). Raises `DataError` for a class that
    it does not have.
    """
    names = model.classes or [str(c) for c in range(model.readout.count or 0)]
    if label is not None and label not in names:
        raise DataError(f"Found no class {label!r}; the model has {', '.join(names[:10])}.")
    return names, names.index(label) if label is not None else None


def _map(model: PromptedModel, x: Raw, target: int) -> tuple[Tensor, dict[int, float], str]:
    """What each place adds `[rows,columns]`, what each block does, and how that was found."""
    try:
        found = explain(model, x, target)
    except PromptError:
        if not isinstance(x, Tensor) or x.ndim != 4:
            raise
        return occlusion(model, x, target)[0], {}, "what it loses where a part is covered"
    blocks = queries_of(model).blocks
    adds = found.parts[0].sum((1, 2)).tolist()
    return found.maps[0].cpu(), dict(zip(blocks, adds, strict=True)), "what its queries read where"
