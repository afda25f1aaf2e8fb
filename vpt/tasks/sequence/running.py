"""Running a method on a sequence of tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from vpt.backbones import Backbone
from vpt.data import Data, joined, with_classes
from vpt.errors import DataError, TrainingError
from vpt.prompts import Prompt, QueryTokens, parse
from vpt.runs.opening import opened
from vpt.tasks.sequence.journal import RESULTS, Journal
from vpt.tasks.sequence.methods import Tuning, count_statistics
from vpt.tasks.sequence.outcome import Outcome
from vpt.tasks.sequence.reading import read_in_turn
from vpt.tasks.sequence.trial import Trial
from vpt.training.folders import run_folder
from vpt.training.recipe import Recipe, chosen

RECIPE = Recipe(epochs=5, lr=5e-3, readout_lr=0.02)
ONE = "deep:5"  # the one prompt of sequential and of joint training
BASELINES = ("nearest-mean", "ridge", "joint")
Method = str | Prompt | Callable[[Backbone], Prompt]


def split(data: Data, per_task: int = 2, seed: int | None = 0) -> list[Data]:
    """One data set as a class-incremental sequence: `per_task` classes each, in an order drawn with
    `seed` (None: as they are).

    Raises `DataError` where the classes do not come out even.
    """
    names = list(data.train.classes)
    if per_task < 1 or len(names) % per_task:
        raise DataError(
            f"Found {len(names)} classes for tasks of {per_task}; needed is a number that divides"
            " them."
        )
    order = names
    if seed is not None:
        order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    return [_only(data, order[i : i + per_task]) for i in range(0, len(order), per_task)]


def _only(data: Data, classes: list[str]) -> Data:
    """The examples of these classes."""
    test = with_classes(data.test, classes) if data.test is not None else None
    return Data(
        with_classes(data.train, classes), with_classes(data.val, classes), test, classes, []
    )


def run(
    method: Method,
    tasks: Sequence[Data],
    backbone: str | Path | Backbone = "vpt:vit-p8-64",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    part: str = "test",
    start: str = "means",
    seed: int | None = None,
    progress: bool = True,
    recipe: Recipe | None = None,
    **settings: object,
) -> Outcome:
    """Learn tasks one after another, without going back to the data of earlier ones, and test on
    all classes seen so far.

    All prompts have the same heads: one per task, in training the others score −inf. Raises
    `DataError` for no task, an empty one, or a class in two of them; `TrainingError` for a folder
    of another run.

    method: "l2p", "dual" or "coda", or any prompt as text ("coda:20@0-7", "prefix:4"), object or
        function of the backbone, tuned on one task after the other; "sequential" tunes one set of
        deep tokens so, "joint" ("joint:coda:10") learns all tasks at once. "queries:4" learns
        queries for each task, of which nothing changes later; recipe and start do not matter then.
        "nearest-mean" and "ridge" (on random features, as RanPAC) learn no prompt; "ridge:blocks:4"
        names the features, and "ridge:queries:4" lets queries learn from the first task alone.
    tasks: their data, as `split` gives them, or your own.
    backbone: as for `vpt.load_backbone`, or an open one.
    out: a folder for the prompt file and the numbers.
    resume: go on with a run that was killed, to the same bytes.
    overwrite: give up what the folder holds.
    part: what is tested on ("val" to choose settings by).
    start: how a new head begins, at its class "means" or at "zeros".
    seed: of the recipe; 0 where nothing says otherwise.
    progress: whether to show how far it is, and say what is done.
    recipe: how to train; `RECIPE` by default.
    settings: fields of the recipe, put over it.
    """
    check_tasks(tasks, part)
    if start not in ("means", "zeros"):
        raise TrainingError(f"Found start={start!r}; needed is 'means' or 'zeros'.")
    recipe = chosen(recipe, RECIPE, seed=seed, **settings)
    name = method if isinstance(method, str) else type(method).__name__
    kind, _, form = name.partition(":")
    joint = kind == "joint" and isinstance(method, str)
    statistics = name == "nearest-mean" or kind == "ridge"
    # which of its files are a finished run's is seen later
    with run_folder(out, resume, overwrite, finished=()) as folder:
        if folder is not None and overwrite and not resume and Accelerator().is_main_process:
            (folder / RESULTS).unlink(missing_ok=True)
        with opened(backbone) as backbone:
            precision = "no" if statistics else recipe.precision
            trial = Trial(list(tasks), backbone, part, recipe.seed, precision, progress)
            if statistics:
                identity = trial.identity(name)
                journal = Journal(folder, identity, resume, overwrite, trial.main)
                return count_statistics(trial, journal, name)
            prompt = _prompt((form or ONE) if joint else method, backbone, recipe.seed)
            identity = trial.identity(name, prompt.config(), asdict(recipe), start)
            journal = Journal(folder, identity, resume, overwrite, trial.main)
            if isinstance(prompt, QueryTokens) and not joint:
                return read_in_turn(trial, journal, name, prompt)
            tuning = Tuning(trial, journal, name, prompt, recipe, start)
            return tuning.all_at_once() if joint else tuning.one_after_another()


def check_tasks(tasks: Sequence[Data], part: str = "test") -> None:
    """Raise `DataError` for no task, one without training examples or without a test part, or a
    class that two tasks have.
    """
    if (
        isinstance(tasks, (str, Data))
        or not isinstance(tasks, Sequence)
        or not all(isinstance(task, Data) for task in tasks)
    ):
        raise DataError(
            "The tasks are a list of vpt.Data, one for each: vpt.continual.split(vpt.load_data(…)),"
            " or your own."
        )
    if part not in ("test", "val"):
        raise DataError(f"Found part={part!r}; needed is 'test' or 'val'.")
    joined({f"task {t + 1}": task.train for t, task in enumerate(tasks)})
    for t, task in enumerate(tasks):
        held = getattr(task, part)
        if not held:
            raise DataError(f"Task {t + 1} has no {part} examples to be tested on.")


def _prompt(method: Method, backbone: Backbone, seed: int) -> Prompt:
    if isinstance(method, Prompt):
        return copy.deepcopy(method)
    if not isinstance(method, str):
        return method(backbone)
    return parse(ONE if method == "sequential" else method, backbone, seed=seed)
