"""What a fitted model says of anything that is handed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from vpt.backbones import Backbone
from vpt.data.given import Given, all_given, examples_of
from vpt.errors import DataError
from vpt.errors.needs import whole
from vpt.files import load
from vpt.model import PromptedModel
from vpt.training.evaluation import scores

CHUNK = 256  # of what comes one by one: so many are read before any is classified


@dataclass(frozen=True)
class Prediction:
    """What a model says of one thing.

    name: its path, or its number among what was handed over. label: its likeliest class.
    probability: of that class. probabilities: by class, the likeliest first; of all classes, or of
        the `top_k` likeliest.
    """

    name: str
    label: str
    probability: float
    probabilities: dict[str, float]


def predict(
    run: PromptedModel | str | Path,
    inputs: object,
    top_k: int | None = None,
    *,
    backbone: Backbone | str | Path | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Prediction]:
    """Classify anything with a fitted model, prepared as what it learned from: one answer each, in
    order.

    run: a model, a run's folder, or a prompt file.
    inputs: a path, a folder, a picture of PIL, an array or tensor of a picture or of sound, or any
        number of them, also one after the other (`vpt.data.given.all_given` says what there is).
    top_k: of how many classes each answer gives the probability; of all by default.
    backbone: to open a run with, as for `vpt.load`.
    batch_size: how many the model is given at once.
    progress: whether to show how far it is.

    Raises `BadFilesError` naming all that cannot be used, before any is classified; of what comes
    from a generator, 256 are read at a time. Raises `DataError` for other things than these.
    """
    whole(DataError, top_k=top_k if top_k is not None else 1, batch_size=batch_size)
    model = run if isinstance(run, PromptedModel) else load(run, backbone)
    found: list[Prediction] = []
    for things in _chunks(all_given(inputs, model.backbone.inputs), isinstance(inputs, Iterator)):
        examples = examples_of(things, model.backbone.inputs)
        answers, _ = scores(
            model, examples, batch_size=batch_size, progress=progress, what="classifying"
        )
        shares = torch.softmax(answers, dim=1)
        names = model.classes or [str(c) for c in range(shares.shape[1])]
        values, order = shares.topk(min(top_k or len(names), len(names)), dim=1)
        for thing, likely, classes in zip(things, values.tolist(), order.tolist(), strict=True):
            by_name = {names[c]: value for c, value in zip(classes, likely, strict=True)}
            found.append(Prediction(thing.name, names[classes[0]], likely[0], by_name))
    if not found:
        raise DataError("Found nothing to classify; needed is at least one file, picture or sound.")
    return found


def _chunks(things: Iterator[Given], one_by_one: bool) -> Iterator[list[Given]]:
    """All at once, so that all bad ones are known first; or as many as are read at a time."""
    while some := list(islice(things, CHUNK if one_by_one else None)):
        yield some
