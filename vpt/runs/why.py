"""Pictures of why a run answers as it does, of its surest mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.data import default_collate

from vpt.data import Examples
from vpt.errors import PromptError
from vpt.errors.text import printable
from vpt.files import write_atomically
from vpt.model import PromptedModel
from vpt.report.overlays import overlay
from vpt.runs.answers import PARTS, Answers
from vpt.runs.cropping import picture_of
from vpt.runs.explaining import explain, queries_of
from vpt.sites import Raw, takes_images

MOST = 3


def draw_why(
    model: PromptedModel,
    parts: Mapping[str, Examples],
    answers: Mapping[str, Answers],
    method: str,
    folder: Path,
) -> list[Path]:
    """Explain the surest mistakes of the part that is tested, where queries can be explained; of a
    run without mistakes nothing. method: what the model is called among the answers.
    """
    for old in folder.glob("why-*.png"):  # of a run whose place this one takes
        old.unlink()
    part = next((name for name in PARTS if name in answers and name in parts), None)
    try:
        queries_of(model)
    except PromptError:
        part = None
    if part is None:
        return []
    own, examples = answers[part], parts[part]
    shares, guess = torch.softmax(own.scores[method].double(), 1).max(1)
    wrong = (guess != own.y).nonzero()[:, 0]
    order = wrong[shares[wrong].argsort(descending=True)][:MOST].tolist()
    # the model may have its classes in another order
    numbers = {name: c for c, name in enumerate(model.classes or own.classes)}
    windows = Counter(examples.windows()[1])
    drawn: list[Path] = []
    for number, i in enumerate(order):
        x: Raw = default_collate([examples[i][0]])
        said, right = own.classes[int(guess[i])], own.classes[int(own.y[i])]
        if said not in numbers:
            continue
        try:
            found = explain(model, x, numbers[said])
        except PromptError:  # windows, or tokens without places
            return drawn
        part_of = f", first of {windows[i]} windows" if windows[i] > 1 else ""
        title = printable(
            f"{said} ({float(shares[i]):.0%}), labelled {right}{part_of}", lines=False
        )
        sound = not takes_images(model.backbone.inputs)
        png = overlay(picture_of(model.backbone, x), found.maps[0].cpu().numpy(), title, sound)
        drawn.append(folder / f"why-{number}.png")
        write_atomically(drawn[-1], png)
    return drawn
