"""The short form: from a folder of labelled files to a fitted, saved prompt with its report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from vpt.backbones import Backbone
from vpt.data import AUGMENTS, Data, load_data, look
from vpt.errors import TrainingError
from vpt.errors.needs import one_of
from vpt.files.beforehand import load_queries
from vpt.model import PromptedModel
from vpt.prompts import HardQueries, Prompt
from vpt.readouts import Readout
from vpt.report.page import draw_or_say
from vpt.report.progress import notice
from vpt.runs.answers import PROMPT
from vpt.runs.automatic import adapt_automatically
from vpt.runs.baselines import Baselines, measure_baselines, with_prompt
from vpt.runs.briefing import say_before
from vpt.runs.cost import Clock
from vpt.runs.hard.adapting import adapt_hard
from vpt.runs.journal import begin
from vpt.runs.labelled import (
    AUTO,
    learned_from,
    refuse_inside,
    refuse_start,
    refuse_told,
    refuse_without_auto,
    told_again,
)
from vpt.runs.learning import SOFTER, calibrate, choose_augment, learn, seconds_to_adapt
from vpt.runs.making import make_prompt, make_readout, start_among
from vpt.runs.moments import moments_of
from vpt.runs.opening import opened
from vpt.runs.page import write_page
from vpt.runs.ran import Ran
from vpt.runs.report import report_of, write_run
from vpt.runs.result import Result
from vpt.runs.stored import stored
from vpt.runs.unlabelled import beside
from vpt.runs.why import draw_why
from vpt.sites import Config
from vpt.training.folders import run_folder
from vpt.training.late import late_features
from vpt.training.loop import History, fit
from vpt.training.recipe import Recipe, chosen, updated


def adapt(
    data: object,
    backbone: str | Path | Backbone | torch.nn.Module | None = None,
    prompt: str | Prompt | Callable[[Backbone], Prompt] = AUTO,
    *,
    out: str | Path | None = None,
    readout: str | Readout = "linear",
    features: str | None = None,
    shots: int | None = None,
    seed: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    split_by: str | None = None,
    val_share: float = 0.2,
    test_share: float = 0.2,
    val_apart: bool = False,
    probe_only: bool = False,
    prune: bool = False,
    start: str | Path | None = None,
    unlabelled: object = None,
    noisy: bool = False,
    augment: str | None = None,
    store: str | Path | None = None,
    recipe: Recipe | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 0,
    progress: bool = True,
    command: str | None = None,
    baselines: Baselines | None = None,
    **settings: object,
) -> Result:
    """Fit a prompt to labelled data, and say what it is worth beside a linear probe.

    data: as for `vpt.load_data`.
    backbone: as for `vpt.load_backbone`, or an open one; by default the bundled one for this kind
        of data. What a model of sound hears at a time follows the clips.
    prompt: "auto" (fixed features, queries, or both, whatever out-of-fold log loss says: the
        simplest that is as good as the best, by one standard error, and never worse there than a
        linear probe; nothing else is then to be set), "queries:N", "shallow:N", "deep:N",
        "prefix:N", "border:WIDTH", "patch:SIZE", "full", "smm", several joined with +; a prompt;
        or a function of the backbone.
    out: a folder for prompt.vpt, metrics.json and pictures.
    readout: "linear" (a new classifier that starts from the probe), "identity" (the model's own
        classes, by name), "map:HOW" (a `LabelMap` from the model's own classes: random, frequency,
        iterative, bayes or bayes+), or a readout.
    features: what a "linear" readout reads, by name, as for `vpt.Linear`: "cls", the default, or
        "queries" under queries; "cls+mean", "blocks:4", "blocks+queries", ….
    shots: as for `vpt.load_data`.
    seed: of the recipe, the split and the prompt; 0 where nothing says otherwise.
    skip_bad, label, split_by, val_share, test_share: as for `vpt.load_data`.
    val_apart: with "auto", learn nothing from the validation examples, which otherwise take their
        turn in the cross-validation and in the final fit.
    probe_only: fit a linear probe of the model's own features, and no prompt.
    prune: with "auto", leave out queries without which no more is lost out of fold.
    start: with "auto", a file of queries that were learned beforehand (examples/many_tasks), where
        queries begin; by default among tokens of the examples.
    unlabelled: with "auto", a folder of examples without labels, or anything that `vpt.predict`
        takes, to be learned from, too.
    noisy: with "auto", whether labels may be wrong: each counts as far as it is believed.
    augment: "auto", the default without a recipe, shifts images, and mirrors them if the probe
        knows mirrored validation images as well as plain ones.
    store: with "auto", a feature store (`vpt.features`), made if it is not there: what it has is
        not computed again, and what it lacks is left there.
    recipe: how to train; what is said besides it (seed, augment, settings) goes over it.
    resume: go on with a run of `out` that was stopped.
    overwrite: begin anew in a folder that holds a run.
    workers: processes that read and prepare the data while training.
    progress: whether to say what is done, and how far it is.
    command: the command line that began the run, for its report.
    baselines: of `measure_baselines` on the same data, if at hand; then nothing is said of the data
        before training.
    settings: fields of `Recipe`.

    Before training it is said what was understood of the data, how its input is prepared, and how
    long it will take. Raises a `VptError` that says what to do, before training wherever that can
    be known.
    """
    clock = Clock()
    automatic, given = prompt == AUTO, recipe
    augment = augment or (recipe.augment if isinstance(recipe, Recipe) else "auto")
    one_of(TrainingError, ("auto", *AUGMENTS), augment=augment)
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    refuse_told(prompt, readout, features, augment, given, settings)
    aims: Config = {"probe_only": probe_only, "prune": prune, "noisy": noisy}
    refuse_without_auto(prompt, **aims, unlabelled=unlabelled, store=store, start=start)
    refuse_start(probe_only, start)
    aims |= {"val_apart": val_apart}
    read: Config = {"label": label, "split_by": split_by, "shots": shots, "skip_bad": skip_bad}
    read |= {"val_share": val_share, "test_share": test_share, "seed": recipe.seed}
    data = look(data, label, split_by=split_by) if isinstance(data, (str, Path)) else data
    refuse_inside(out, data, unlabelled)
    with (
        run_folder(out, resume, overwrite) as folder,
        opened(backbone, data) as backbone,
        stored(store, backbone, data),
        ExitStack() as undo,
    ):
        made = Prompt() if automatic else make_prompt(prompt, backbone, recipe.seed)
        parts = load_data(data, backbone.inputs, progress=progress, **read)
        shown = progress and Accelerator().is_main_process
        if folder is not None:
            clock.look(backbone, parts)
        if automatic:
            source = learned_from(parts, recipe.seed, **aims)
            if start is not None:
                source.start = load_queries(start, backbone)
                parts.notes.append(f"queries begin as those in {start}")
            source.told = told_again(data, read, aims, store, start, unlabelled)
            if unlabelled is not None:
                source.unlabelled = beside(
                    unlabelled, backbone.inputs, parts, recipe.seed, skip_bad, progress
                )
            result = adapt_automatically(backbone, parts, source, recipe, clock, command, shown)
            return _written(result, folder, parts, shown)
        if isinstance(made, HardQueries):
            result = adapt_hard(backbone, made, parts, recipe, clock, command, shown)
            return _written(result, folder, parts, shown)
        if isinstance(prompt, str):
            start_among(made, backbone, parts.train, recipe.seed)
        joined = make_readout(readout, backbone, parts, recipe.seed, made, features)
        if shown and baselines is None:  # who has these has looked at the data
            seconds = seconds_to_adapt(backbone, made, joined, parts, recipe, augment)
            say_before(parts, backbone, made.describe(), seconds)
        with late_features(backbone, made.sites(), recipe.kept, partial(notice, shown=shown)):
            baselines = baselines or measure_baselines(backbone, parts, recipe.seed, progress)
            if augment == "auto":
                augment = choose_augment(backbone, parts, baselines)
            recipe = updated(recipe, augment=augment)
            model = PromptedModel(backbone, made, joined)
            undo.callback(model.close)  # whatever goes wrong: Ctrl-C, a disk that went away
            how: Config = {"resume": resume, "overwrite": overwrite, "workers": workers}
            train = partial(fit, out=folder, progress=progress, **how)
            strength = baselines.strength * SOFTER if readout == "linear" else None
            history = learn(model, parts, recipe, strength, train, progress)
            result = _result(model, parts, baselines, history, recipe, clock, command)
        undo.pop_all()
        return _written(result, folder, parts, shown)


def _result(
    model: PromptedModel,
    data: Data,
    baselines: Baselines,
    history: History,
    recipe: Recipe,
    clock: Clock,
    command: str | None,
) -> Result:
    """What came out of a training that is done; the readout is calibrated first.

    model: that learned.
    data: from which it learned.
    baselines: on the same data.
    history: of the training.
    recipe: by which it was trained.
    clock: since the run began.
    command: the command line that began it, if one did.
    """
    answers, slope = calibrate(model, with_prompt(baselines.answers, model, data))
    ran = Ran(
        data=data,
        train_n=len(data.train),
        strength=baselines.strength,
        slope=slope,
        history=history,
        recipe=recipe,
        clock=clock,
        command=command,
    )
    return Result(model, report_of(model, answers, PROMPT, ran), history, answers)


def _written(result: Result, folder: Path | None, data: Data, shown: bool) -> Result:
    """The result with its folder, if it has one; a model that could not be saved is closed."""
    if folder is None:
        return result
    result.folder = folder
    try:
        moments = result.moments or moments_of(result.model, data.train, shown)
        if Accelerator().is_main_process:
            begin(folder, moments)
            result.file = write_run(folder, result.model, result.report, data.val, result.answers)
            draw_or_say(folder, partial(_draw_page, folder, result, data))
    except BaseException:
        result.model.close()
        raise
    return result


def _draw_page(folder: Path, result: Result, data: Data) -> None:
    draw_why(result.model, data.parts, result.answers, result.report.method, folder)
    write_page(folder, data.parts)
