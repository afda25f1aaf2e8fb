"""The short form for fairness: from a biased model and a table with groups to a learned border, its
trade-off and its report.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vpt.backbones import Backbone
from vpt.data import Data, load_data, look
from vpt.errors import TrainingError
from vpt.errors.needs import whole
from vpt.errors.places import is_there
from vpt.fairness.automatic import decides, refuse_told, usual
from vpt.fairness.forms import FOLDS, Forms, forms_of
from vpt.fairness.outcome import Frontier
from vpt.fairness.page import write_reprogrammed
from vpt.fairness.report import POINTS, Report, report_of, write
from vpt.fairness.strengths import objectives
from vpt.model import PromptedModel
from vpt.prompts import Prompt
from vpt.readouts import Readout
from vpt.report.page import draw_or_say
from vpt.runs.journal import begin
from vpt.runs.labelled import AUTO
from vpt.runs.moments import moments_of
from vpt.runs.opening import opened
from vpt.sites import Config
from vpt.training.evaluation import matched
from vpt.training.folders import run_folder
from vpt.training.recipe import Recipe, chosen


@dataclass
class Reprogrammed:
    """What `reprogram` made: the model with the chosen prompt, the whole trade-off, its numbers,
    and its files if written.
    """

    model: PromptedModel
    frontier: Frontier
    numbers: Report
    folder: Path | None = None
    file: Path | None = None

    @property
    def report(self) -> Config:
        """The numbers as plain values."""
        return self.numbers.as_dict()


def reprogram(
    data: Any,
    model: str | Path | Backbone | torch.nn.Module,
    prompt: str | Prompt | Callable[[Backbone], Prompt] | None = None,
    *,
    label: str | None = None,
    group: str | Sequence[str] | None = None,
    split_by: str | None = None,
    method: str = "penalty",
    criterion: str = "eo",
    strengths: Sequence[float] | None = None,
    budget: float = 0.01,
    bound: float | None = None,
    positive: str | None = None,
    readout: str | Readout = "identity",
    folds: int = 0,
    out: str | Path | None = None,
    seed: int | None = None,
    val_share: float = 0.3,
    test_share: float = 0.2,
    skip_bad: bool = False,
    recipe: Recipe | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
    command: str | None = None,
    **settings: object,
) -> Reprogrammed:
    """Learn a prompt that makes a frozen classifier err alike between groups, at little loss of
    accuracy. Raises a `VptError` that says what to do, before training wherever that can be known.

    data: as for `vpt.load_data`, with a group for every example.
    model: a classifier as for `vpt.load_backbone`.
    prompt: as for `vpt.adapt`. "auto" learns none: it corrects the model's own scores on its
        frozen features, and chooses out of fold. It is the default; where a method, a readout or
        anything of the recipe is given, or the model's scores are no linear function of its
        features, that is a border of 20 pixels in 224. Several, divided by commas
        ("auto,patch:16"), are compared, and one of them is taken.
    label: the column of labels.
    group: the column of groups; of several, their combinations.
    split_by: a column whose values (persons, say) stay on one side when parts are held out.
    method, criterion, strengths, budget, bound, positive: as for `vpt.frontier`.
    readout: "identity", the model's own classes, matched by name (by number where it names none),
        or "linear", a new classifier that begins as a probe (of what queries read, under such a
        prompt).
    folds: of a prompt that is trained: hold every example that is not for testing out once, so that
        all of them choose, in folds + 1 times the time; 0 lets `val_share` of them choose. Where
        several forms are compared, 3.
    out: a folder for the prompt file, the numbers and pictures.
    seed: of the recipe, the split and the prompt; 0 where nothing says otherwise.
    val_share, test_share, skip_bad: as for `vpt.load_data`.
    recipe: how to train; `Recipe()` by default.
    resume: go on where a run in this folder was stopped.
    overwrite: give up what the folder holds.
    progress: whether to show how far it is.
    say: is told what is done.
    command: by which it was begun, for the report.
    settings: fields of the recipe, put over it.
    """
    started = time.monotonic()
    if isinstance(readout, str) and readout not in ("identity", "linear"):
        raise TrainingError(
            f"Found readout={readout!r}; needed is 'identity' (the model's own classes), 'linear',"
            " or a readout."
        )
    told = settings | ({"recipe": recipe} if recipe is not None else {})
    forms = forms_of(prompt)
    folds = folds or (FOLDS if forms else 0)
    whole(TrainingError, least=2, folds=folds or 2)
    if prompt == AUTO:
        refuse_told(method, readout, told)
    if prompt is None or prompt == AUTO or forms:
        objectives(method, criterion, strengths, budget, bound)  # refuses what is none
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    seed = recipe.seed
    data = look(data, label, group, split_by=split_by) if isinstance(data, (str, Path)) else data
    aims: Config = {"method": method, "budget": budget, "bound": bound}
    tried: Config = {
        "criterion": criterion,
        "strengths": strengths,
        "budget": budget,
        "bound": bound,
    }
    with run_folder(out, resume, overwrite) as folder, ExitStack() as undo:
        points = _points(folder, resume, overwrite)
        backbone = undo.enter_context(opened(model, data))
        if prompt is None:
            stopped = resume and points is not None and is_there(points)
            prompt = usual(backbone, stopped or bool(decides(method, readout, told)))
        wanted = load_data(
            data,
            backbone.inputs,
            label=label,
            group=group,
            split_by=split_by,
            seed=seed,
            skip_bad=skip_bad,
            progress=progress,
            val_share=val_share,
            test_share=test_share,
        )
        shown = progress and Accelerator().is_main_process
        tried |= {"positive": positive, "progress": progress, "say": say}
        learning = Forms(backbone, wanted, readout, recipe, method, folds, tried, resume, shown)
        if forms:
            prompted, tradeoff = learning.best(forms, points)
        else:
            prompted, tradeoff = learning.learned(prompt, points)
        undo.callback(prompted.close)  # whatever goes wrong: Ctrl-C, a disk that went away
        aims |= {"seconds": round(time.monotonic() - started, 1), "command": command}
        numbers = report_of(prompted, tradeoff, wanted, recipe, **aims)
        result = Reprogrammed(prompted, tradeoff, numbers, folder)
        if folder is not None:
            result.file = _written(result, folder, wanted, shown)
        undo.pop_all()
    return result


def _written(result: Reprogrammed, folder: Path, data: Data, shown: bool) -> Path | None:
    """Write what a run leaves; the prompt file's path, on the main process."""
    learned = matched(result.model, data.train)
    moments = result.frontier.moments or moments_of(result.model, learned, shown)
    if not Accelerator().is_main_process:
        return None
    begin(folder, moments)
    file = write(folder, result.model, result.frontier, result.numbers, data.val)
    draw_or_say(folder, partial(write_reprogrammed, folder))
    return file


def _points(folder: Path | None, resume: bool, overwrite: bool) -> Path | None:
    """Where the points of the trade-off are kept; emptied to begin again. Raises `TrainingError`
    where a run was stopped.
    """
    if folder is None or not is_there(folder / POINTS) or resume:
        return folder / POINTS if folder is not None else None
    if not overwrite:
        raise TrainingError(
            f"{folder} holds a run that was stopped. Go on with resume=True (--resume), begin again"
            " with overwrite=True (--overwrite), or choose another folder (out=…)."
        )
    if Accelerator().is_main_process:
        shutil.rmtree(folder / POINTS)
    return folder / POINTS
