"""What each query answers to: the places of given examples where it adds most to the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from vpt.data.given import all_given, examples_of
from vpt.errors import DataError
from vpt.files import write_atomically
from vpt.model import PromptedModel
from vpt.prompts.hard import SIDE
from vpt.report.crops import Crop, crops
from vpt.report.progress import progress_bar
from vpt.runs.cropping import crop_of, picture_of
from vpt.runs.explaining import Explanation, explain, queries_of
from vpt.runs.overlays import class_of
from vpt.sites import Raw

MOST = 6  # places of a query
BATCH = 16
PICTURE = "queries.png"


def draw_answers(
    model: PromptedModel,
    inputs: object,
    out: Path,
    label: str | None = None,
    progress: bool = False,
) -> Path:
    """For each query a row of crops: the places of these examples (best of all: of training) where
    it adds most to the class that the model says, one of an example (of each window of a long
    clip); by effect, not by distance.

    model: whose queries are looked at.
    inputs: files, or what else `vpt.predict` takes.
    out: a folder for queries.png, whose path is returned.
    label: a class to look at instead.
    progress: whether to show how far it is.

    Raises `PromptError` for a model without
    queries, and `DataError` for inputs that cannot be used.
    """
    prompt = queries_of(model)
    things = list(all_given(inputs, model.backbone.inputs))
    if not things:
        raise DataError("Found nothing to look at; needed is at least one file.")
    examples = examples_of(things, model.backbone.inputs)
    names, target = class_of(model, label)
    heard, _ = examples.windows()
    best: list[Tensor] = []
    where: list[Tensor] = []
    targets: list[int] = []
    grid = (1, 1)
    with progress_bar(progress) as bar:
        task = bar.add_task("looking at examples", total=len(heard))
        for start in range(0, len(heard), BATCH):
            some = range(start, min(start + BATCH, len(heard)))
            x: Raw = default_collate([heard[i][0] for i in some])
            found: Explanation = explain(model, x, target)
            value, place = found.queries.flatten(3).max(3)  # [B,blocks,count]
            best.append(value)
            where.append(place)
            targets += found.target.tolist()
            grid = (found.maps.shape[1], found.maps.shape[2])
            bar.advance(task, len(some))
    value, place = torch.cat(best).cpu(), torch.cat(where).cpu()
    rows: list[tuple[str, list[Crop]]] = []
    for i, block in enumerate(prompt.blocks):
        for number in range(prompt.counts[i]):
            order = value[:, i, number].argsort(descending=True)[:MOST].tolist()
            row = []
            for example in order:
                picture = picture_of(model.backbone, default_collate([heard[example][0]]))
                crop = crop_of(picture, grid, int(place[example, i, number]), SIDE)
                said = f"{names[targets[example]]} {float(value[example, i, number]):+.2f}"
                row.append((np.asarray(crop.permute(1, 2, 0)) / 255, said[:24]))
            rows.append((f"block {block}\nquery {number}", row))
    title = "Where each query adds most, and to which answer"
    write_atomically(out / PICTURE, crops(rows, title))
    return out / PICTURE
