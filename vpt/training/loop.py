"""An open training loop on accelerate: any number of processes, resumable to the bit, the best
prompt kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import Dataset

from vpt.errors import TrainingError
from vpt.errors.needs import whole
from vpt.model import PromptedModel
from vpt.objectives import Objective
from vpt.objectives.classification import Classification
from vpt.report.progress import notice
from vpt.training.checkpoints import Checkpoint, Row
from vpt.training.compiling import compiled
from vpt.training.epochs import Epochs
from vpt.training.evaluation import accelerator_in, matched
from vpt.training.folders import run_folder
from vpt.training.late import GIGABYTES, late_features
from vpt.training.recipe import Recipe, updated
from vpt.training.state import State


@dataclass
class History:
    """One row per epoch (epoch 0: before training); `best` is the epoch whose prompt the model
    holds now.

    cuts: how often the rate was cut to a quarter, because training left its start by far.
    """

    rows: list[Row]
    best: int
    cuts: int = 0


def fit(
    model: PromptedModel,
    train: Dataset[object],
    val: Dataset[object] | None = None,
    *,
    objective: Objective | None = None,
    recipe: Recipe | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 0,
    cache_gigabytes: float = GIGABYTES,
    progress: bool = True,
    **settings: object,
) -> History:
    """Train a model's prompt and readout; afterwards it holds the state of least loss on `val`
    (without one, or with an objective by group, the last).

    Raises `TrainingError`; `DivergedError` on NaN or infinity, with the last good prompt in the
    model; `DataError` for data that does not fit.

    model: the one to train.
    train: a dataset of (input, label[, group]).
    val: another, or None.
    objective: `Classification()` by default.
    recipe: how to train; `Recipe()` by default.
    out: a folder for history.jsonl and checkpoints.
    resume: go on from there after a kill; the numbers are those of an undisturbed run.
    overwrite: begin anew in a folder that holds a run.
    workers: processes that read and prepare the data.
    cache_gigabytes: how much may be kept of what enters the first prompted block, where that is not
        block 0.
    progress: whether to show how far it is, and say what is done.
    settings: fields of the recipe (epochs=…, lr=…), put over it.
    """
    recipe = updated(recipe or Recipe(), **settings)
    whole(TrainingError, least=0, workers=workers)
    accelerator = accelerator_in(recipe.precision)
    train = matched(model, train)
    val = matched(model, val) if val is not None else None
    objective = objective or Classification()
    if not isinstance(objective, Objective):
        raise TrainingError(
            f"Found {type(objective).__name__} as objective; needed is e.g. vpt.GapPenalty(1.0), or"
            " None."
        )
    refuse_few_epochs(objective, recipe)
    objective.bind(train.targets, train.grouped, train.classes, train.group_names)
    model.to(accelerator.device)
    state = State(model, train, val, objective, recipe, accelerator)
    shown = progress and accelerator.is_main_process
    say = partial(notice, shown=shown)
    identity = state.identity()
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    model.eval()
    kept = late_features(model.backbone, model.attachment.sites, recipe.kept, say, cache_gigabytes)
    with run_folder(out, resume, overwrite) as folder:
        checkpoint = Checkpoint(folder, identity, accelerator)
        with torch.random.fork_rng(devices=devices), compiled(model, recipe.compile), kept:
            Epochs(state, checkpoint, workers, shown, say).run(resume)
    position = state.position
    return History(position.rows, position.best, position.cuts)


def refuse_few_epochs(objective: Objective, recipe: Recipe) -> None:
    """Raise `TrainingError` where an objective would do nothing of its own."""
    if recipe.epochs < objective.least_epochs:
        raise TrainingError(
            f"{type(objective).__name__} needs {objective.least_epochs} epochs or more; found"
            f" epochs={recipe.epochs}."
        )
