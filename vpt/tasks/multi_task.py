"""Multitask prompt tuning: one prompt learned from several tasks and their teachers, and taken to
new tasks (Wang et al., ICLR 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vpt.backbones import Backbone
from vpt.data import Data, Examples, balanced, joined
from vpt.errors import DataError, PromptError, TrainingError
from vpt.files import save
from vpt.model import PromptedModel
from vpt.objectives import Distillation
from vpt.prompts import MultiTask, Prompt, parse
from vpt.readouts import Linear, TaskHeads
from vpt.report.progress import notice
from vpt.runs.opening import opened
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import accelerator_in, evaluate, scores
from vpt.training.folders import PROMPT, run_folder
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
        return self.model.prompt  # type: ignore[return-value]

    def accuracies(self, tasks: Mapping[str, Data], part: str = "val") -> dict[str, float]:
        """Each task's accuracy among its own classes."""
        found = {}
        for name, data in tasks.items():
            examples = getattr(data, part)
            if examples is None:
                raise DataError(f"Task {name!r} has no {part} examples.")
            found[name] = evaluate(
                self.model, joined({name: examples}, _qualified({name: examples}))
            )["accuracy"]
        return found


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
    **settings: Any,
) -> Shared:
    """Learn one prompt for several tasks, times two vectors for each.

    First every task gets a prompt of its own, its teacher; then the shared one learns from labels
    and teachers' scores alike, examples of all tasks mixed in each update. prompt: deep or shallow
    tokens or a prefix, as text or object; it is copied.
    distil: λ of the teachers' part, 0 for none (and no teachers). sampling: "balanced" (every task
        as often as the largest) or "proportional" to its examples. All heads begin at class means.
        out: a folder; a run that was killed goes on with resume, and overwrite gives up what it
        holds. Raises `PromptError` for another prompt, `DataError` for an empty task,
        `TrainingError` for bad settings.
    """
    if sampling not in SAMPLING:
        raise TrainingError(f"Found sampling={sampling!r}; needed is one of {', '.join(SAMPLING)}.")
    if not isinstance(tasks, Mapping) or not all(isinstance(data, Data) for data in tasks.values()):
        raise DataError("The tasks are {name: data} with vpt.load_data(…) of each.")
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    with run_folder(out, resume, overwrite) as folder, opened(backbone) as backbone:
        how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "progress": progress}
        return _share(tasks, backbone, prompt, distil, temperature, sampling, folder, recipe, **how)


def _share(
    tasks: Mapping[str, Data],
    backbone: Backbone,
    prompt: str | Prompt,
    distil: float,
    temperature: float,
    sampling: str,
    folder: Path | None,
    recipe: Recipe,
    *,
    progress: bool,
    **how: Any,
) -> Shared:
    """`share`, with its folder and its backbone at hand."""
    seed = recipe.seed
    accelerator = accelerator_in(recipe.precision)
    say = partial(notice, shown=progress and accelerator.is_main_process)
    start = parse(prompt, backbone, seed=seed) if isinstance(prompt, str) else prompt
    # says what cannot be shared, before anything is learned
    whole = MultiTask(copy.deepcopy(start), list(tasks))
    for task, data in tasks.items():
        _check_classes(data, task)
    trains = {task: data.train for task, data in tasks.items()}
    train, names = joined(trains, _qualified(trains)), _qualified(trains)
    vals = {task: val for task, data in tasks.items() if (val := _val(data)) is not None}
    val = joined(vals, _qualified(vals)) if len(vals) == len(tasks) else None
    learn: Callable[..., Any] = partial(fit, recipe=recipe, progress=progress, **how)
    readout = TaskHeads(backbone.out_features, names)
    targets = torch.full((len(train), len(train.classes)), float("-inf"))
    teachers: dict[str, float] = {}
    row = column = 0
    for t, (task, data) in enumerate(tasks.items()):
        head = _class_means(backbone, data, accelerator)
        _copy(head, readout.linears[t])
        size, width = len(data.train), len(data.train.classes)
        if distil:
            say(f"teacher {t + 1} of {len(tasks)}: {task}")
            with PromptedModel(backbone, copy.deepcopy(start), head) as model:
                learn(
                    model,
                    data.train,
                    _val(data),
                    out=folder / "teachers" / str(t) if folder else None,
                )
                targets[row : row + size, column : column + width] = scores(
                    model, data.train, accelerator=accelerator
                )[0]
                teachers[task] = evaluate(model, _val(data) or data.train, accelerator=accelerator)[
                    "accuracy"
                ]
        row, column = row + size, column + width
    if sampling == "balanced":
        positions = balanced(train)
        train, targets = train.subset(positions), targets[positions]
    model = PromptedModel(backbone, whole, readout)
    try:
        say(f"the shared prompt of {len(tasks)} tasks")
        objective = Distillation(targets, distil, temperature) if distil else None
        learn(model, train, val, objective=objective, out=folder / "shared" if folder else None)
        if folder is not None and accelerator.is_main_process:
            save(
                folder / PROMPT,
                model,
                trained_on={"tasks": {name: len(data.train) for name, data in tasks.items()}},
            )
    except BaseException:
        model.close()
        raise
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
    **settings: Any,
) -> PromptedModel:
    """A new task's prompt and readout, tuned from the shared prompt's place; the shared prompt
    itself stays as it is.

    learn: "all", the task's two "factors" only (some tenth as many numbers), or "nothing" (the
        universal prompt as it is, with a readout that learns). The readout starts from a linear
        probe on what the universal prompt makes of the data. Raises `PromptError` for a prompt that
        is not a `MultiTask`.
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
    _check_classes(data, "new")
    with opened(backbone) as backbone:
        model = PromptedModel(backbone, prompt, Linear(backbone.out_features, data.train.classes))
        try:
            features = scores(model, data.train, outputs=True, accelerator=accelerator)
            _copy(
                fit_probe(*features, classes=data.train.classes, seed=recipe.seed)[0], model.readout
            )
            how: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "progress": progress}
            fit(model, data.train, _val(data), recipe=recipe, out=out, **how)
        except BaseException:
            model.close()
            raise
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
    own, head = (
        prompt.export(task),
        (readout.export(task) if isinstance(readout, TaskHeads) else readout),
    )
    with model.backbone.guard:  # no other thread sees the one task alone
        model.swap(own, head)
        try:
            return save(path, model)
        finally:
            model.swap(prompt, readout)


def _val(data: Data) -> Examples | None:
    return data.val if data.val is not None and len(data.val) else None


def _qualified(parts: Mapping[str, Examples]) -> dict[str, list[str]]:
    """Class names that say their task, so that two tasks may share them."""
    return {task: [f"{task}: {name}" for name in part.classes] for task, part in parts.items()}


def _check_classes(data: Data, task: str) -> None:
    """Raise `DataError` for a task with nothing to tell apart."""
    if len(set(data.train.targets)) < 2:
        raise DataError(
            f"Task {task!r} has examples of {len(set(data.train.targets))} classes; needed are two"
            " or more."
        )


def _class_means(backbone: Backbone, data: Data, accelerator: Accelerator) -> Linear:
    """A head that begins at the class means of the bare features; a probe would leave nothing to
    learn.
    """
    heads = TaskHeads(backbone.out_features, {"": data.train.classes}, incremental=True)
    with PromptedModel(backbone, None, heads) as model:
        heads.start(*scores(model, data.train, outputs=True, accelerator=accelerator))
    return heads.export("")


@torch.no_grad()
def _copy(source: torch.nn.Module, to: torch.nn.Module) -> None:
    to.load_state_dict({name: value.clone() for name, value in source.state_dict().items()})
