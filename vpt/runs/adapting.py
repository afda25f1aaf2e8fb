"""The short form: from a folder of labelled files to a fitted, saved prompt with its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import default_collate

from vpt.backbones import Backbone
from vpt.data import AUGMENTS, Data, Examples, Source, load_data, look
from vpt.errors import DataError, PromptError, TrainingError
from vpt.errors.needs import one_of
from vpt.errors.places import is_within
from vpt.model import PromptedModel
from vpt.prompts import Prompt, parse
from vpt.readouts import Readout
from vpt.readouts import parse as parse_readout
from vpt.report.progress import notice
from vpt.runs.baselines import Baselines, measure_baselines
from vpt.runs.briefing import say_before
from vpt.runs.learning import SOFTER, choose_augment, learn, seconds_to_adapt
from vpt.runs.opening import opened
from vpt.runs.report import AdaptReport, report_of, write_run
from vpt.sites import Config
from vpt.training.folders import run_folder
from vpt.training.late import late_features
from vpt.training.loop import History, fit
from vpt.training.recipe import Recipe, chosen, updated

SEEN = 16  # training examples among whose tokens a prompt begins


@dataclass
class Result:
    """What `adapt` made: the fitted model, its report, its history, and the run's folder and
    prompt file (if written).
    """

    model: PromptedModel
    report: AdaptReport
    history: History
    folder: Path | None = None
    file: Path | None = None

    @property
    def metrics(self) -> Config:
        """The report in plain values, as metrics.json has it."""
        return self.report.as_dict()


def adapt(
    data: object,
    backbone: str | Path | Backbone | torch.nn.Module | None = None,
    prompt: str | Prompt | Callable[[Backbone], Prompt] = "deep:10",
    *,
    out: str | Path | None = None,
    readout: str | Readout = "linear",
    shots: int | None = None,
    seed: int | None = None,
    skip_bad: bool = False,
    label: str | None = None,
    split_by: str | None = None,
    val_share: float = 0.2,
    test_share: float = 0.2,
    augment: str | None = None,
    recipe: Recipe | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int = 0,
    progress: bool = True,
    command: str | None = None,
    baselines: Baselines | None = None,
    **settings: object,
) -> Result:
    """Fit a prompt to labelled data, starting from a linear probe, and say whether it was worth it.

    data: as for `vpt.load_data`.
    backbone: as for `vpt.load_backbone`, or an open one; by default the bundled one for this kind
        of data. What a model of sound hears at a time follows the clips.
    prompt: "shallow:N", "deep:N", "prefix:N", "border:WIDTH", "patch:SIZE", "full", "smm", several
        joined with +; a prompt; or a function of the backbone.
    out: a folder for prompt.vpt, metrics.json and pictures.
    readout: "linear" (a new classifier that starts from the probe), "identity" (the model's own
        classes, by name), "map:HOW" (a `LabelMap` from the model's own classes: random, frequency,
        iterative, bayes or bayes+), or a readout.
    shots: as for `vpt.load_data`.
    seed: of the recipe, the split and the prompt; 0 where nothing says otherwise.
    skip_bad: as for `vpt.load_data`.
    label: as for `vpt.load_data`.
    split_by: as for `vpt.load_data`.
    val_share: as for `vpt.load_data`.
    test_share: as for `vpt.load_data`.
    augment: "auto", the default without a recipe, shifts images, and mirrors them if the probe
        knows mirrored validation images as well as plain ones.
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
    started = time.monotonic()
    if not augment:
        augment = recipe.augment if isinstance(recipe, Recipe) else "auto"
    one_of(TrainingError, ("auto", *AUGMENTS), augment=augment)
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    data = look(data, label, split_by=split_by) if isinstance(data, (str, Path)) else data
    if out is not None and isinstance(data, Source) and is_within(out, data.path):
        raise TrainingError(
            f"{out} lies inside the data, {data.path}: the run's own files would be read as"
            " examples. Choose another out=…."
        )
    with (
        run_folder(out, resume, overwrite) as folder,
        opened(backbone, data) as backbone,
        ExitStack() as undo,
    ):
        made = make_prompt(prompt, backbone, recipe.seed)
        parts = load_data(
            data,
            backbone.inputs,
            label=label,
            split_by=split_by,
            shots=shots,
            seed=recipe.seed,
            skip_bad=skip_bad,
            val_share=val_share,
            test_share=test_share,
            progress=progress,
        )
        if isinstance(prompt, str):
            start_among(made, backbone, parts.train, recipe.seed)
        joined = make_readout(readout, backbone, parts, recipe.seed)
        shown = progress and Accelerator().is_main_process
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
            train = partial(
                fit,
                out=folder,
                resume=resume,
                overwrite=overwrite,
                workers=workers,
                progress=progress,
            )
            strength = baselines.strength * SOFTER if readout == "linear" else None
            history = learn(model, parts, recipe, strength, train, progress)
            report = report_of(model, parts, baselines, history, recipe, started, command)
        result = Result(model, report, history, folder)
        if folder is not None and Accelerator().is_main_process:
            result.file = write_run(folder, model, report, history.rows, parts.val)
        undo.pop_all()
    return result


def make_prompt(
    prompt: str | Prompt | Callable[[Backbone], Prompt], backbone: Backbone, seed: int
) -> Prompt:
    """The prompt that was asked for. Raises `PromptError`."""
    if isinstance(prompt, str):
        return parse(prompt, backbone, seed=seed)
    made = prompt(backbone) if callable(prompt) and not isinstance(prompt, Prompt) else prompt
    if not isinstance(made, Prompt):
        raise PromptError(
            f"Found {type(made).__name__} as prompt; needed is text such as 'deep:10', a prompt, or"
            " a function of the backbone that gives one."
        )
    return made


def make_readout(readout: str | Readout, backbone: Backbone, data: Data, seed: int) -> Readout:
    """The readout that was asked for, bound to the backbone. Raises `TrainingError`,
    `PromptError`.
    """
    if isinstance(readout, str):
        readout = parse_readout(readout, backbone, data.classes, seed)
    if not isinstance(readout, Readout):
        raise TrainingError(
            f"Found readout={readout!r}; needed is text such as 'linear', or a readout."
        )
    readout.bind(backbone)  # so that a misfit is said before the features are computed
    return readout


def start_among(prompt: Prompt, backbone: Backbone, examples: Examples, seed: int) -> None:
    """Begin a prompt in the midst of the model's own tokens, of a few examples of all classes in
    turn.

    Random ones can be unlike anything that a block has seen: on a Whisper encoder a probe under
    them was 24 points worse. Tokens of single examples carry what these say (`draw_rows`).
    """
    met: Counter[int] = Counter()
    turn = []
    for target in examples.targets:
        turn.append(met[target])
        met[target] += 1
    few = sorted(range(len(examples)), key=turn.__getitem__)[:SEEN]
    try:
        batch = default_collate([examples[i][0] for i in few])
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"The examples cannot be put into one batch, as of several shapes or kinds: {error}"
        ) from error
    prompt.start_from(backbone, batch, seed)
