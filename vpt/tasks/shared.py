"""Multitask prompt tuning: one prompt learned from several tasks and their teachers, and taken to
new tasks (Wang et al., ICLR 2023). Known as `vpt.multi_task`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch

from vpt.backbones import Backbone
from vpt.data import Data, Examples, balanced, joined
from vpt.errors import DataError, PromptError, TrainingError
from vpt.errors.needs import one_of
from vpt.files import save
from vpt.files.naming import PROMPT
from vpt.model import PromptedModel
from vpt.objectives.distillation import Distillation
from vpt.prompts import MultiTask, Prompt, parse
from vpt.readouts import Linear, TaskHeads
from vpt.report.progress import notice
from vpt.runs.opening import opened
from vpt.runs.probe import fit_probe
from vpt.sites import Config
from vpt.tasks.teachers import (
    Learn,
    check_classes,
    class_means,
    copy_state,
    taught,
    validation,
)
from vpt.training.evaluation import accelerator_in, evaluate, scores
from vpt.training.folders import run_folder
from vpt.training.loop import fit
from vpt.training.recipe import Recipe, chosen

DISTIL = 0.9  # λ of Wang et al. 2023, section 3.2
SAMPLING = ("balanced", "proportional")


@dataclass
class Shared:
    """A prompt shared by several tasks, with their heads, in `model`.

    teachers: the accuracy of each task's own prompt on validation examples (without any, on
        training examples).
    """

    model: PromptedModel
    teachers: dict[str, float]

    @property
    def prompt(self) -> MultiTask:
        """The shared prompt and each task's factors. `prompt.shared` alone is the universal
        prompt.
        """
        return cast(MultiTask, self.model.prompt)

    def accuracies(self, tasks: Mapping[str, Data], part: str = "val") -> dict[str, float]:
        """Each task's accuracy among its own classes."""
        accuracies = {}
        for name, data in tasks.items():
            examples = getattr(data, part)
            if examples is None:
                raise DataError(f"Task {name!r} has no {part} examples.")
            alone = joined({name: examples}, _qualified({name: examples}))
            accuracies[name] = evaluate(self.model, alone)["accuracy"]
        return accuracies


def share(
    tasks: Mapping[str, Data],
    backbone: str | Path | Backbone = "vpt:vit-p8-64",
    prompt: str | Prompt = "deep:10",
    *,
    distil: float = DISTIL,
    temperature: float = 1.0,
    sampling: str = "balanced",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int | None = None,
    progress: bool = True,
    recipe: Recipe | None = None,
    **settings: object,
) -> Shared:
    """Learn one prompt for several tasks, times two vectors for each.

    First every task gets a prompt of its own, its teacher; then the shared one learns from labels
    and teachers' scores alike, examples of all tasks mixed in each update. All heads begin at class
    means. Raises `PromptError` for another prompt, `DataError` for an empty task, `TrainingError`
    for bad settings.

    tasks: the data of each, by name.
    backbone: as for `vpt.load_backbone`, or an open one.
    prompt: deep or shallow tokens or a prefix, as text or object; it is copied.
    distil: λ of the teachers' part, 0 for none (and no teachers).
    temperature: of the teachers' scores.
    sampling: "balanced" (every task as often as the largest) or "proportional" to its examples.
    out: a folder for the prompt file and checkpoints.
    resume: go on with a run that was killed.
    overwrite: give up what the folder holds.
    seed: of the recipe; 0 where nothing says otherwise.
    progress: whether to show how far it is, and say what is done.
    recipe: how to train; `Recipe()` by default.
    settings: fields of the recipe, put over it.
    """
    one_of(TrainingError, SAMPLING, sampling=sampling)
    if not isinstance(tasks, Mapping) or not all(isinstance(data, Data) for data in tasks.values()):
        raise DataError("The tasks are {name: data} with vpt.load_data(…) of each.")
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    with run_folder(out, resume, overwrite) as folder, opened(backbone) as backbone:
        how: Config = {"resume": resume, "overwrite": overwrite, "progress": progress}
        learn: Learn = partial(fit, recipe=recipe, **how)
        accelerator = accelerator_in(recipe.precision)
        say = partial(notice, shown=progress and accelerator.is_main_process)
        start = parse(prompt, backbone, seed=recipe.seed) if isinstance(prompt, str) else prompt
        # says what cannot be shared, before anything is learned
        shared = MultiTask(copy.deepcopy(start), list(tasks))
        for task, data in tasks.items():
            check_classes(data, task)
        train, val = _together(tasks)
        heads = [class_means(backbone, data, accelerator) for data in tasks.values()]
        names = _qualified({task: data.train for task, data in tasks.items()})
        readout = TaskHeads(backbone.out_features, names)
        for head, linear in zip(heads, readout.linears, strict=True):
            copy_state(head, linear)
        teachers: dict[str, float] = {}
        targets = torch.full((len(train), len(train.classes)), float("-inf"))
        if distil:
            row = column = 0
            for t, (task, data) in enumerate(tasks.items()):
                say(f"teacher {t + 1} of {len(tasks)}: {task}")
                place = folder / "teachers" / str(t) if folder is not None else None
                model = PromptedModel(backbone, copy.deepcopy(start), heads[t])
                answers, teachers[task] = taught(model, data, learn, place, accelerator)
                height, width = answers.shape
                targets[row : row + height, column : column + width] = answers
                row, column = row + height, column + width
        if sampling == "balanced":
            positions = balanced(train)
            train, targets = train.subset(positions), targets[positions]
        with ExitStack() as undo:
            model = PromptedModel(backbone, shared, readout)
            undo.callback(model.close)  # whatever goes wrong
            say(f"the shared prompt of {len(tasks)} tasks")
            objective = Distillation(targets, distil, temperature) if distil else None
            place = folder / "shared" if folder is not None else None
            learn(model, train, val, objective=objective, out=place)
            if folder is not None and accelerator.is_main_process:
                sizes = {name: len(data.train) for name, data in tasks.items()}
                save(folder / PROMPT, model, trained_on={"tasks": sizes})
            undo.pop_all()
    return Shared(model, teachers)


def take_to(
    shared: MultiTask,
    data: Data,
    backbone: str | Path | Backbone = "vpt:vit-p8-64",
    *,
    learn: str = "all",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int | None = None,
    progress: bool = True,
    recipe: Recipe | None = None,
    **settings: object,
) -> PromptedModel:
    """A new task's prompt and readout, tuned from the shared prompt's place; the shared prompt
    itself stays as it is.

    The readout starts from a linear probe on what the universal prompt makes of the data. Raises
    `PromptError` for a prompt that is not a `MultiTask`.

    shared: the prompt of `share`.
    data: of the new task.
    backbone: as for `vpt.load_backbone`, or an open one.
    learn: "all", the task's two "factors" only (some tenth as many numbers), or "nothing" (the
        universal prompt as it is, with a readout that learns).
    out: a folder for checkpoints.
    resume: go on with a run that was killed.
    overwrite: give up what the folder holds.
    seed: of the recipe; 0 where nothing says otherwise.
    progress: whether to show how far it is.
    recipe: how to train; `Recipe()` by default.
    settings: fields of the recipe, put over it.
    """
    if not isinstance(shared, MultiTask):
        raise PromptError(
            f"Found {type(shared).__name__}; needed is the MultiTask prompt of"
            " vpt.multi_task.share(…).prompt."
        )
    prompt = shared.new_task("new", "factors" if learn == "nothing" else learn)
    if learn == "nothing":
        prompt.requires_grad_(False)
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    accelerator = accelerator_in(recipe.precision)
    check_classes(data, "new")
    with opened(backbone) as backbone, ExitStack() as undo:
        model = PromptedModel(backbone, prompt, Linear(backbone.out_features, data.train.classes))
        undo.callback(model.close)  # whatever goes wrong
        features = scores(model, data.train, outputs=True, accelerator=accelerator)
        probe = fit_probe(*features, classes=data.train.classes, seed=recipe.seed)[0]
        copy_state(probe, model.readout)
        how: Config = {"resume": resume, "overwrite": overwrite, "progress": progress}
        fit(model, data.train, validation(data), recipe=recipe, out=out, **how)
        undo.pop_all()
    return model


def export(path: str | Path, model: PromptedModel, task: str) -> Path:
    """Save one task of a shared model as an ordinary small prompt file with its own head. Raises
    `PromptError` for an unknown task.
    """
    prompt, readout = model.prompt, model.readout
    if not isinstance(prompt, MultiTask):
        raise PromptError(
            f"Found a model with {type(prompt).__name__}; needed is one with a MultiTask prompt."
        )
    alone = prompt.export(task)
    head = readout.export(task) if isinstance(readout, TaskHeads) else readout
    with model.backbone.guard:  # no other thread sees the one task alone
        model.swap(alone, head)
        try:
            return save(path, model)
        finally:
            model.swap(prompt, readout)


def _together(tasks: Mapping[str, Data]) -> tuple[Examples, Examples | None]:
    """(training examples of all tasks, validation examples of all where each has some)."""
    trains = {task: data.train for task, data in tasks.items()}
    vals = {task: val for task, data in tasks.items() if (val := validation(data)) is not None}
    val = joined(vals, _qualified(vals)) if len(vals) == len(tasks) else None
    return joined(trains, _qualified(trains)), val


def _qualified(parts: Mapping[str, Examples]) -> dict[str, list[str]]:
    """Class names that say their task, so that two tasks may share them."""
    return {task: [f"{task}: {name}" for name in part.classes] for task, part in parts.items()}
