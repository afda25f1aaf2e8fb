"""The short form: from a folder of labelled files to a fitted, saved prompt with its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import default_collate

from vpt.backbones import Backbone, first_block
from vpt.data import AUGMENTS, Data, Examples, Source, in_views, load_data, look
from vpt.data.readers import RawInput
from vpt.errors import DataError, PromptError, TrainingError
from vpt.errors.places import is_within
from vpt.model import PromptedModel
from vpt.prompts import Prompt, parse
from vpt.readouts import Identity, LabelMap, Linear, Readout
from vpt.report.progress import notice
from vpt.runs.baselines import Baselines, measure_baselines
from vpt.runs.briefing import data_facts, say_before, seconds_of_run
from vpt.runs.folder import count, write_run
from vpt.runs.opening import opened
from vpt.runs.probe import fit_probe
from vpt.training.evaluation import evaluate, scores
from vpt.training.folders import run_folder
from vpt.training.late import late_features, without_cache
from vpt.training.loop import History, fit
from vpt.training.recipe import Recipe, chosen, updated

# the readout starts from a probe this much more strongly regularised, which leaves the prompt
# something to do
SOFTER = 0.3
VIEWS = 3  # augmented views of each training image that this probe sees besides the plain one
SEEN = 16  # training examples among whose tokens a prompt begins
# mirrored validation images may cost the probe this much accuracy and still count as the same class
FLIP_TOLERANCE = 0.02


@dataclass
class Result:
    """What `adapt` made: the fitted model, its numbers, its history, and the run's folder and
    prompt file (if written).
    """

    model: PromptedModel
    metrics: dict[str, Any]
    history: History
    folder: Path | None = None
    file: Path | None = None


def adapt(
    data: Any,
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
    **settings: Any,
) -> Result:
    """Fit a prompt to labelled data, starting from a linear probe, and say whether it was worth it.

    data, label, split_by, val_share, test_share, shots, skip_bad: as for `vpt.load_data`.
    backbone: as for `vpt.load_backbone`, or an open one; by default the bundled one for this kind
        of data. What a model of sound hears at a time follows the clips.
    prompt: "shallow:N", "deep:N", "prefix:N", "border:WIDTH", "patch:SIZE", "full", "smm", several
        joined with +; a prompt; or a function of the backbone.
    readout: "linear" (a new classifier that starts from the probe), "identity" (the model's own
        classes, by name), "map:HOW" (a `LabelMap` from the model's own classes: random, frequency,
        iterative, bayes or bayes+), or a readout.
    out: a folder for prompt.vpt, metrics.json and pictures.
    recipe: how to train; what is said besides it (seed, augment, settings: fields of `Recipe`) goes
        over it.
    seed: of the recipe, the split and the prompt; 0 where nothing says otherwise.
    augment: "auto", the default without a recipe, shifts images, and mirrors them if the probe
        knows mirrored validation images as well as plain ones.
    workers: processes that read and prepare the data while training.
    baselines: of `measure_baselines` on the same data, if at hand; then nothing is said of the data
        before training.

    Before training it is said what was understood of the data, how its input is prepared, and how
    long it will take. Raises a `VptError` that says what to do, before training wherever that can
    be known.
    """
    started = time.monotonic()
    augment = augment or ("auto" if recipe is None else getattr(recipe, "augment", "auto"))
    if augment not in ("auto", *AUGMENTS):
        raise TrainingError(
            f"Found augment={augment!r}; needed is one of auto, {', '.join(AUGMENTS)}."
        )
    recipe = chosen(recipe, Recipe(), seed=seed, **settings)
    seed = recipe.seed
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
        made = make_prompt(prompt, backbone, seed)
        wanted = load_data(
            data,
            backbone.inputs,
            label=label,
            split_by=split_by,
            shots=shots,
            seed=seed,
            skip_bad=skip_bad,
            val_share=val_share,
            test_share=test_share,
            progress=progress,
        )
        if isinstance(prompt, str):
            start_among(made, backbone, wanted.train, seed)
        joined = make_readout(readout, backbone, wanted, seed)
        shown = progress and Accelerator().is_main_process
        if shown and baselines is None:  # who has these has looked at the data
            say_before(
                wanted,
                backbone,
                made.describe(),
                _time(backbone, made, joined, wanted, recipe, augment),
            )
        with late_features(backbone, made.sites(), recipe.kept, partial(notice, shown=shown)):
            baselines = baselines or measure_baselines(backbone, wanted, seed, progress)
            recipe = updated(
                recipe,
                augment=(
                    _choose_augment(backbone, wanted, baselines) if augment == "auto" else augment
                ),
            )
            model = PromptedModel(backbone, made, joined)
            undo.callback(model.close)  # whatever goes wrong: Ctrl-C, a disk that went away
            start = baselines.strength * SOFTER if readout == "linear" else None
            how: dict[str, Any] = {
                "out": folder,
                "resume": resume,
                "overwrite": overwrite,
                "workers": workers,
            }
            history = _learn(model, wanted, recipe, start, progress=progress, **how)
            report = _report(model, wanted, baselines, history, recipe)
        report |= {"seconds": round(time.monotonic() - started, 1), "command": command}
        result = Result(model, report, history, folder)
        if folder is not None and Accelerator().is_main_process:
            result.file = write_run(folder, model, report, history.rows, wanted.val)
        undo.pop_all()
    return result


def _learn(
    model: PromptedModel,
    data: Data,
    recipe: Recipe,
    start: float | None,
    *,
    progress: bool,
    **how: Any,
) -> History:
    """Train. start: the strength of the probe from which the readout starts, and that it is probed
    again afterwards; or None.
    """
    views = data.train
    if recipe.augment != "none":
        views = in_views(data.train, recipe.augment, 1 + VIEWS, recipe.seed)
    if start is not None:
        _start_from_probe(model, views, start, progress)
    if _late(model.prompt) and recipe.augment != "none":
        history = fit(
            model, views, data.val, recipe=updated(recipe, augment="none"), progress=progress, **how
        )
    else:
        history = fit(model, data.train, data.val, recipe=recipe, progress=progress, **how)
    if start is not None:
        _refit(model, data, recipe.seed, progress)
    return history


def _time(
    backbone: Backbone, prompt: Prompt, readout: Readout, data: Data, recipe: Recipe, augment: str
) -> float:
    """How long it will take here, in seconds."""
    augmented = backbone.inputs.kind == "image" if augment == "auto" else augment != "none"
    views = 1 + (VIEWS if augmented else 0)
    with PromptedModel(backbone, prompt, readout) as model:
        return seconds_of_run(
            model,
            data,
            recipe,
            views if isinstance(readout, Linear) else 1,
            anew=augmented and not _late(prompt),
        )


def _late(prompt: Prompt) -> bool:
    """Whether a prompt begins late, so that it learns from a few views of each image, which are
    then computed once and kept.

    Whatever is kept in the end, the views are these: the result is the same without a cache.
    """
    return first_block(prompt.sites()) > 0


def _start_from_probe(
    model: PromptedModel, train: Examples, strength: float, progress: bool
) -> None:
    """Give the readout a probe of the features *with* the untrained prompt acting, so that training
    starts from one.

    It sees augmented views too: a probe of plain views alone can be so far off on shifted ones that
    training destroys it.
    """
    views, found = train.views(), []
    for number, view in enumerate(views):
        # those are not seen again
        with without_cache(model, number > 0 and not _late(model.prompt)):
            found.append(
                scores(
                    model,
                    view,
                    outputs=True,
                    progress=progress,
                    what="features under the new prompt",
                )
            )
    features, y = (torch.cat(parts) for parts in zip(*found, strict=True))
    probe, _ = fit_probe(features, y, train.classes, strength=strength / len(views))
    model.readout.load_state_dict(probe.state_dict())


def _refit(model: PromptedModel, data: Data, seed: int, progress: bool) -> None:
    """Keep a new cross-validated probe of the trained prompt's features as readout, if it has less
    loss on validation.
    """
    trained = {name: value.clone() for name, value in model.readout.state_dict().items()}
    before = evaluate(model, data.val)["loss"]
    found = scores(
        model, data.train, outputs=True, progress=progress, what="features under the trained prompt"
    )
    model.readout.load_state_dict(
        fit_probe(*found, classes=data.classes, seed=seed)[0].state_dict()
    )
    if evaluate(model, data.val)["loss"] >= before:
        model.readout.load_state_dict(trained)


def _choose_augment(backbone: Backbone, data: Data, baselines: Baselines) -> str:
    """ "flip-crop" if mirrored validation images keep their class for the probe, else "crop";
    "none" for sound.
    """
    if backbone.inputs.kind != "image":
        return "none"
    val = data.val
    mirrored = Examples(lambda i: _mirrored(val[i][0]), val.targets, val.classes)
    with PromptedModel(backbone, None, baselines.probe) as model, without_cache(model):
        found = evaluate(model, mirrored)["accuracy"]
    return "flip-crop" if found >= baselines.linear_probe["val"] - FLIP_TOLERANCE else "crop"


def _mirrored(image: RawInput) -> RawInput:
    return image.flip(-1) if isinstance(image, Tensor) else image


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
        together = default_collate([examples[i][0] for i in few])
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"The examples cannot be put into one batch, as of several shapes or kinds: {error}"
        ) from error
    prompt.start_from(backbone, together, seed)


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
        kind, _, how = readout.partition(":")
        if kind == "map":
            readout = LabelMap(data.classes, how or "bayes", seed=seed)
        elif readout == "identity":
            numbers = backbone.class_names is None and all(
                name.isdecimal() for name in data.classes
            )
            readout = Identity(
                data.classes, [int(name) for name in data.classes] if numbers else None
            )
        elif readout == "linear":
            readout = Linear(backbone.out_features, data.classes)
    if not isinstance(readout, Readout):
        raise TrainingError(
            f"Found readout={readout!r}; needed is 'linear', 'identity', 'map:HOW' or a readout."
        )
    readout.bind(backbone)  # so that a misfit is said before the features are computed
    return readout


def _report(
    model: PromptedModel, data: Data, baselines: Baselines, history: History, recipe: Recipe
) -> dict[str, Any]:
    val = evaluate(model, data.val)
    test = evaluate(model, data.test) if data.test is not None else None
    probe = baselines.linear_probe
    worth = "the prompt is better than the linear probe on validation"
    if probe["val"] >= val["accuracy"]:
        worth = (
            "the linear probe alone was"
            f" {'as good' if probe['val'] == val['accuracy'] else 'better'} on validation"
        )
    kept = (
        "; training never had less loss there than its start, which is kept"
        if history.best == 0
        else ""
    )
    return {
        "test_accuracy": test["accuracy"] if test else None,
        "test_n": test["n"] if test else 0,
        "test_per_class": test["per_class"] if test else None,
        "val_accuracy": val["accuracy"],
        "val_n": val["n"],
        "train_n": len(data.train),
        "baselines": {
            "nearest_mean": baselines.nearest_mean,
            "linear_probe": probe | {"C": baselines.strength},
        },
        "verdict": f"{worth} ({val['accuracy']:.1%} against {probe['val']:.1%}){kept}",
        "prompt": model.prompt.describe(),
        "parameters_trained": {
            "prompt": count(model.prompt),
            "readout": count(model.readout) if model.readout.trainable else 0,
        },
        "backbone": model.backbone.identity,
        "classes": model.classes,
        "label_map": model.readout.mapping() if isinstance(model.readout, LabelMap) else None,
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "best_epoch": history.best,
        "rate_cuts": history.cuts,
        "skipped": data.skipped,
        "data": data_facts(data),
        "inputs": str(model.backbone.inputs),
    }
